"""A model of Triton's Python backend: `model.tflite` beside this file, run by LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton
from ai_edge_litert.interpreter import Interpreter


class TritonPythonModel:
    """The name that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model, once."""
        model = Path(__file__).with_name("model.tflite")
        self._interpreter = Interpreter(model_path=str(model), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        responses = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            self._interpreter.set_tensor(self._input, x)
            self._interpreter.invoke()
            y = self._interpreter.get_tensor(self._output)
            responses.append(triton.InferenceResponse([triton.Tensor("y", y)]))
        return responses
