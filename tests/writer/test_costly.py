"""The costly models cost what they say, on both runtimes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from loader_service.writer import costly

from .running import Runtime, call

# Prints peak resident memory in KiB after each call.
_MEASURE = """
import sys, numpy
from {package}.interpreter import Interpreter
interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)
interpreter.allocate_tensors()
for value in {values}:
    detail, = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], numpy.array([value], detail["dtype"]))
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == [1]
    # Not ru_maxrss: it goes on from the peak of the process that started this one.
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            print(line.split()[1])
"""


def _peaks(runtime: Runtime, model: bytes, values: list[int]) -> list[int]:
    """Peak memory in bytes after each call of a model with one input of one element."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(package=runtime.package, values=values)],
        input=model,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    return [int(line) * 1024 for line in done.stdout.split()]


def test_the_files_are_tiny() -> None:
    for model in (
        costly.work(),
        costly.endless(),
        costly.memory_hog(),
        costly.memory_hog_on_demand(),
    ):
        assert len(model) < 4096


def test_work_runs_as_often_as_asked(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(costly.work(16))
    for iterations in (1, 0, 2000):
        assert call(interpreter, [iterations])[0].tolist() == [iterations]


def test_the_endless_model_does_not_end(runtime: Runtime) -> None:
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
        f"from {runtime.package}.interpreter import Interpreter\n"
        "interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)\n"
        "interpreter.allocate_tensors()\n"
        "print('calling', flush=True)\n"
        "interpreter.invoke()\n"
        "print('ended', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=costly.endless(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    # The limit of processor time ends it, in the middle of the call.
    assert done.returncode < 0
    assert done.stdout == b"calling\n"


def test_the_hog_on_demand_takes_what_the_call_asks(runtime: Runtime) -> None:
    mebibyte = 1 << 20
    little, much = _peaks(runtime, costly.memory_hog_on_demand(), [64, 192])
    assert 120 * mebibyte < much - little < 160 * mebibyte


@pytest.mark.slow
def test_the_hog_takes_what_it_says(runtime: Runtime) -> None:
    (peak,) = _peaks(runtime, costly.memory_hog(1), [1])
    assert np.clip(peak, 1.0 * (1 << 30), 1.2 * (1 << 30)) == peak
