"""Finding runtimes, and what a warm one no longer needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loader_service.runtime import runtimes
from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.runtime.runtimes import (
    RuntimeNotInstalled,
    find_runtime,
    installed_runtimes,
)

AFTER_WARMING = """
import os, sys
from loader_service.runtime.failures import RuntimeFailure
from loader_service.runtime.runtimes import find_runtime
from loader_service.writer import small, stateful
contents = [small.add(), small.scalar(), small.dynamic_output(), stateful.counter(), b"no model",
            small.add()[:200] + b"\\xff" * 200]
runtime = find_runtime(sys.argv[1])
runtime.warm()
loaded = set(sys.modules)
sys.addaudithook(lambda event, arguments: event == "open" and os._exit(7))
for content in contents if sys.argv[1] == "litert" else contents[:-1]:
    try:
        model = runtime.load(content, threads=1, memory_bytes=1 << 30)
    except RuntimeFailure:
        continue
    for number, signature in enumerate(model.description.signatures):
        for view in model.prepare_inputs(number, [one.dimensions for one in signature.inputs]):
            view[:] = bytes(len(view))
        model.invoke(number)
        model.outputs(number)
    model.reset()
assert set(sys.modules) == loaded, set(sys.modules) - loaded
assert not {"grpc", "google.protobuf", "asyncio"} & loaded, loaded
"""


def test_nothing_is_imported_or_opened_once_warm(runtime: InterpreterRuntime) -> None:
    """Nor does a runtime say a word on stderr, and gRPC, protobuf and asyncio are never loaded."""
    done = subprocess.run(
        [sys.executable, "-c", AFTER_WARMING, runtime.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_auto_is_the_best_one_installed(runtime: InterpreterRuntime) -> None:
    assert find_runtime("auto").name == installed_runtimes()[0].name
    assert runtime.name in [found.name for found in installed_runtimes()]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no runtime is called 'onnx'"):
        find_runtime("onnx")


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "MODULES", {"litert": "loader_service.runtime.not_there"})
    with pytest.raises(RuntimeNotInstalled, match=r"pip install 'model-loader\[service\]'"):
        find_runtime("auto")
    assert installed_runtimes() == []
