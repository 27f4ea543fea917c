"""The folder of models that the operator approved: ``name/version/model.tflite``, and its pin."""
