"""Runs a model in a forked child, without a service: how a runtime alone ends with it.

For finding and understanding holes of the verifier, and for the coverage-guided fuzzer, which would
not survive a fault of the runtime. The child has limits and no sandbox.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from loader_service.runtime.failures import RuntimeFailure
from loader_service.runtime.verifier.verify import verify

CPU_SECONDS = 4
MEMORY_BYTES = 256 << 20
ADDRESS_SPACE = 4 << 30
LARGEST_INPUT = 4 << 20

Interpreter = Callable[..., Any]


def interpreter(runtime: str) -> Interpreter:
    """The class of that runtime; raises ImportError where it is not installed."""
    name = "ai_edge_litert" if runtime == "litert" else "tflite_runtime"
    kind: Interpreter = importlib.import_module(f"{name}.interpreter").Interpreter
    return kind


def end_of(work: Callable[[], None]) -> str:
    """Do something in a forked child; returns ``"ended"``, an exception's name, or a signal's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(work, writing)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as said:
        answer = said.read().decode()
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return answer or f"status {os.WEXITSTATUS(status)}"


def _be_child(work: Callable[[], None], writing: int) -> None:
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nothing, descriptor)
        for fault in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL):
            signal.signal(fault, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        work()
        os.write(writing, b"ended")
    except BaseException as error:
        os.write(writing, type(error).__name__.encode())
    finally:
        os._exit(0)


def compute(make: Interpreter, model: bytes, seed: int) -> None:
    """Open the model and run its primary subgraph once with made-up inputs."""
    values = np.random.default_rng(seed)
    opened = make(model_content=model, num_threads=1)
    opened.allocate_tensors()
    for tensor in opened.get_input_details():
        shape, kind = tuple(tensor["shape"]), np.dtype(tensor["dtype"])
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if count * kind.itemsize > LARGEST_INPUT or kind.kind in "SO":
            return
        if kind.kind == "f":
            filled = (4 * values.standard_normal(shape)).astype(kind)
        else:
            filled = values.integers(0, 4, shape).astype(kind)
        opened.set_tensor(tensor["index"], filled)
    opened.invoke()
    for tensor in opened.get_output_details():
        opened.get_tensor(tensor["index"])


def accepted(model: bytes) -> bool:
    """Whether the verifier takes the model."""
    try:
        verify(model, memory_bytes=MEMORY_BYTES)
    except RuntimeFailure:
        return False
    return True
