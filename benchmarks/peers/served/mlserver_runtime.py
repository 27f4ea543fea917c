"""A runtime for MLServer: the model file of its settings, run by LiteRT."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class LiteRT(MLModel):  # type: ignore[misc]  # MLServer is not installed where types are checked
    """One input, one output."""

    async def load(self) -> bool:
        """Load the model, once in each worker."""
        self._interpreter = Interpreter(model_path=self.settings.parameters.uri, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        self._interpreter.set_tensor(self._input, x)
        self._interpreter.invoke()
        y = self._interpreter.get_tensor(self._output)
        outputs = [NumpyCodec.encode_output("y", y)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
