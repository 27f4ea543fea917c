"""Runs a model in process, or in a process of its own where it may end it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

LITERT = "ai_edge_litert"
TFLITE_RUNTIME = "tflite_runtime"


@dataclass(frozen=True)
class Runtime:
    """One of the two runtimes, by the name of its package."""

    package: str

    def interpreter(self, model: bytes) -> Any:
        """An interpreter of one thread with its tensors allocated."""
        module = importlib.import_module(f"{self.package}.interpreter")
        interpreter = module.Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter

    def run(self, model: bytes, *inputs: Any) -> list[Any]:
        """The outputs of one call on a fresh interpreter, inputs resized where they differ."""
        interpreter = self.interpreter(model)
        return call(interpreter, *inputs)

    def exit_of(self, model: bytes, *inputs: Any) -> int:
        """The exit status (minus the signal's number) of a process that loads and calls once."""
        script = (
            "import sys, resource, numpy\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
            f"from {self.package}.interpreter import Interpreter\n"
            "interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)\n"
            "interpreter.allocate_tensors()\n"
            f"for detail, value in zip(interpreter.get_input_details(), {list(inputs)!r}):\n"
            "    interpreter.set_tensor(detail['index'], numpy.array(value, detail['dtype']))\n"
            "interpreter.invoke()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=model,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return done.returncode


def call(interpreter: Any, *inputs: Any) -> list[Any]:
    """One call: inputs in tensor order, resized where their shape differs; outputs in order."""
    details = interpreter.get_input_details()
    arrays = [
        np.array(value, None if detail["dtype"] is np.bytes_ else detail["dtype"])
        for detail, value in zip(details, inputs, strict=True)
    ]
    if any(array.shape != tuple(d["shape"]) for array, d in zip(arrays, details, strict=True)):
        for array, detail in zip(arrays, details, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
    for array, detail in zip(arrays, details, strict=True):
        if array.dtype == np.uint16:
            # tflite-runtime 2.14 knows the type, but its set_tensor does not.
            interpreter.tensor(detail["index"])()[...] = array
        else:
            interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [
        # Both runtimes refuse to hand out a tensor that became empty during the call.
        np.zeros(detail["shape"], detail["dtype"])
        if 0 in detail["shape"]
        else interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_output_details()
    ]


def names(details: Sequence[dict[str, Any]]) -> list[str]:
    """The tensors' names."""
    return [detail["name"] for detail in details]


def require(package: str) -> Runtime:
    """The runtime, or a skip that says it is not installed here."""
    pytest.importorskip(f"{package}.interpreter", reason=f"{package} is not installed here")
    return Runtime(package)
