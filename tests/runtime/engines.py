"""Calls a model through the engine and through the plain library, with the same arrays."""

from __future__ import annotations

import faulthandler
import importlib
import os
import resource
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from loader_service.runtime.runtimes import RuntimeNotInstalled, find_runtime
from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription
from model_loader_wire.strings import pack_strings

LITERT = "litert"
TFLITE_RUNTIME = "tflite-runtime"
NAMES = (LITERT, TFLITE_RUNTIME)
_PACKAGES = {LITERT: "ai_edge_litert", TFLITE_RUNTIME: "tflite_runtime"}

Array = np.ndarray[Any, Any]
Answer = tuple[tuple[int, ...], bytes]
"""Dimensions and bytes of one output."""


@cache
def _find(name: str) -> InterpreterRuntime | str:
    try:
        found = find_runtime(name)
    except RuntimeNotInstalled as error:
        return str(error)
    assert isinstance(found, InterpreterRuntime)
    found.warm()
    return found


def engine(name: str) -> InterpreterRuntime:
    """Return a warm runtime, or skip the calling test with the reason."""
    found = _find(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def load(runtime: InterpreterRuntime, model: bytes, threads: int = 1) -> InterpreterModel:
    """Load without a memory limit."""
    return runtime.load(model, threads=threads, memory_bytes=None)


def signature_number(model: InterpreterModel, name: str) -> int:
    """Return the place of a signature in the description."""
    return [signature.name for signature in model.description.signatures].index(name)


def call(model: InterpreterModel, inputs: Sequence[Array], signature: int = 0) -> list[Answer]:
    """Call as the worker's loop does; checks that the answer is what was declared."""
    shapes = [array.shape for array in inputs]
    views = model.prepare_inputs(signature, shapes)
    for position, (array, view) in enumerate(zip(inputs, views, strict=True)):
        if view is None:
            model.set_strings(signature, position, array.shape, strings_of(array))
        else:
            assert len(view) == array.nbytes
            view[:] = array.tobytes()
    model.invoke(signature)
    outputs = model.outputs(signature)
    declared = model.description.signatures[signature].outputs
    for description, output in zip(declared, outputs, strict=True):
        assert output.data_type is description.data_type
        assert description.accepts(output.dimensions)
        assert description.byte_length in (None, len(output.data))
    return [(output.dimensions, bytes(output.data)) for output in outputs]


class Plain:
    """The plain library in this process, called as its own users call it."""

    def __init__(
        self, runtime: InterpreterRuntime, model: bytes, threads: int = 1, *, builtin: bool = False
    ) -> None:
        """Open the model; `builtin`: with the built-in kernels alone, without XNNPACK."""
        self._library = importlib.import_module(f"{_PACKAGES[runtime.name]}.interpreter")
        resolver = self._library.OpResolverType
        self._interpreter = self._library.Interpreter(
            model_content=model,
            num_threads=threads,
            experimental_op_resolver_type=(
                resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else resolver.AUTO
            ),
        )
        self._interpreter.allocate_tensors()

    def call(self, inputs: Sequence[Array]) -> list[Answer]:
        """Set tensors, invoke, get tensors; resize first where a shape differs."""
        interpreter = self._interpreter
        details = interpreter.get_input_details()
        if any(
            array.shape != tuple(detail["shape"])
            for array, detail in zip(inputs, details, strict=True)
        ):
            for array, detail in zip(inputs, details, strict=True):
                interpreter.resize_tensor_input(detail["index"], array.shape)
            interpreter.allocate_tensors()
        for array, detail in zip(inputs, details, strict=True):
            if array.dtype == np.uint16:
                # tflite-runtime 2.14 knows the type, but its set_tensor does not.
                interpreter.tensor(detail["index"])()[...] = array
            else:
                interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [self._output(detail) for detail in interpreter.get_output_details()]

    def call_signature(self, key: str, inputs: Mapping[str, Array]) -> dict[str, Answer]:
        """Call a signature runner."""
        answer = self._interpreter.get_signature_runner(key)(**inputs)
        return {name: answer_of(np.asarray(value)) for name, value in answer.items()}

    def _output(self, detail: Mapping[str, Any]) -> Answer:
        if 0 in detail["shape"]:
            # Both libraries refuse to hand out an empty tensor that has an address.
            data = pack_strings([]) if detail["dtype"] is np.bytes_ else b""
            return tuple(int(size) for size in detail["shape"]), data
        return answer_of(np.asarray(self._interpreter.get_tensor(detail["index"])))


def answer_of(array: Array) -> Answer:
    """Lay out an array of the plain library as the engine does."""
    if array.dtype == object:
        return array.shape, pack_strings([value or b"" for value in array.reshape(-1).tolist()])
    return array.shape, array.tobytes()


def strings_of(array: Array) -> list[bytes]:
    """Return a string array's elements in row-major order."""
    return [bytes(value) for value in array.reshape(-1).tolist()]


def random_inputs(
    signature: SignatureDescription, seed: int = 0, open_size: int = 1
) -> list[Array]:
    """Make inputs of the declared types: small values, `open_size` where a size is open."""
    generator = np.random.default_rng(seed)
    arrays: list[Array] = []
    for tensor in signature.inputs:
        assert tensor.dimensions is not None
        shape = tuple(open_size if size is None else size for size in tensor.dimensions)
        if tensor.data_type is DataType.STRING:
            words = [b"", b"one", "zwei ö".encode(), b"\0three"]
            array = np.empty(shape, object)
            array.reshape(-1)[:] = [words[int(n)] for n in generator.integers(0, 4, array.size)]
        else:
            name = tensor.data_type.api_name
            array = generator.integers(0, 4, shape).astype(
                "complex64" if name == "unknown" else name
            )
        arrays.append(array)
    return arrays


def exit_of(body: Callable[[], None]) -> int:
    """Run `body` in a forked child; minus the signal's number that ended it, else 0 or 1."""
    child = os.fork()
    if child == 0:
        status = 1
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
