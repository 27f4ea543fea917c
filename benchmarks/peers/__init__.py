"""Other servers for TFLite models, each in a Python environment of its own."""
