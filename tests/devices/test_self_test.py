"""The start-up self-test: what it finds right, and that it finds what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from loader_service.devices import self_test
from loader_service.devices.catalogue import Enabled
from loader_service.devices.model_view import ModelView
from loader_service.devices.reading import read_view
from loader_service.devices.self_test import Found, Threads
from loader_service.runtime.native import Library
from tests.shared_models import REPOSITORY

pytestmark = pytest.mark.forks


def run_main(runtime: str, *devices: Enabled, seconds: float = 20) -> dict[str, Found]:
    """Run the self-test as the service does, and return what was found of the devices."""
    fields = json.dumps([device.to_fields() for device in devices])
    command = [sys.executable, "-m", self_test.__name__, runtime, fields, str(seconds)]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "client")])
    done = subprocess.run(
        command, env={"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True, timeout=200
    )
    found = {name: Found(**item) for name, item in json.loads(done.stdout).items()}
    assert found.pop(self_test.ABI) == Found()
    return found


def little_device(little: Path, name: str, **options: str) -> Enabled:
    """The tests' delegate under a name of its own."""
    return Enabled(f"external:{name}", str(little), tuple(options.items()))


def test_the_structures_are_those_of_the_runtime(library: Library) -> None:
    self_test.check_structures(library)


def other_shape(model: ModelView) -> ModelView:
    """The warm-up model with an input of another shape."""
    first, *rest = model.tensors
    return replace(model, tensors=(replace(first, shape=(1, 4, 4, 2)), *rest))


def other_inputs(model: ModelView) -> ModelView:
    """The warm-up model with other inputs of an operator."""
    first, *rest = model.nodes
    return replace(model, nodes=(replace(first, inputs=(0, 2, 1)), *rest))


def other_constant(model: ModelView) -> ModelView:
    """The warm-up model with a constant that is none."""
    index = model.nodes[0].inputs[1]
    tensors = [replace(it, data=None) if it.index == index else it for it in model.tensors]
    return replace(model, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_shape, "shape: (1, 4, 4, 1), and not (1, 4, 4, 2)"),
        (other_inputs, "operator 0: inputs"),
        (other_constant, "place: 1, and not 2"),
    ],
)
def test_what_differs_from_the_file_is_found(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[ModelView], ModelView],
    words: str,
) -> None:
    monkeypatch.setattr(self_test, "read_view", lambda data: change(read_view(data)))
    with pytest.raises((self_test.Wrong, RuntimeError, ValueError), match=re.escape(words)):
        self_test.check_structures(library)


def test_a_kernel_that_does_not_reach_the_tensors_is_found(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test._Reshape, "run", lambda *_: None)
    with pytest.raises(self_test.Wrong, match="a kernel of ours changes the answer"):
        self_test.check_structures(library)


def quiet() -> None:
    """A test that finds nothing."""


def busy() -> Threads:
    """A test that finds threads."""
    return Threads(loaded=2, run=5)


def crash() -> None:
    """A test that ends by a signal."""
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGBUS)


def crash_with_words() -> None:
    """A test that says something, and ends by a signal."""
    os.write(1, b"chip: bus error 5\n\n")
    os.write(2, b"chip: it is over\n \n")
    crash()


def crash_with_many_words() -> None:
    """A test that says more than a pipe holds, and ends by a signal."""
    for _ in range(1000):
        with suppress(BlockingIOError):
            os.write(2, b"a" * 499 + b"\n")
    crash()


def sleep() -> None:
    """A test that does not end."""
    time.sleep(600)


def complain() -> None:
    """A test that finds something."""
    raise self_test.Wrong("this is wrong")


@pytest.mark.parametrize(
    ("test", "found"),
    [
        (quiet, Found()),
        (busy, Found(threads_loaded=2, threads_run=5)),
        (complain, Found("this is wrong")),
        (crash, Found("its test ended by SIGBUS")),
        (crash_with_words, Found("its test ended by SIGBUS: chip: it is over")),
        (crash_with_many_words, Found("its test ended by SIGBUS: " + "a" * 200)),
        (sleep, Found("its test was not over after 1 s")),
    ],
)
def test_a_child_says_what_it_found(test: Callable[[], Threads | None], found: Found) -> None:
    assert self_test.in_a_child(test, 1 if test is sleep else 20) == found


def test_each_library_is_tried_in_a_process_of_its_own(
    little: Path, threaded: Path, library: Library
) -> None:
    devices = [
        little_device(little, "good"),
        little_device(little, "crashes", fault="crash-create"),
        little_device(little, "absent", fault="create"),
        little_device(little, "opaque", fault="opaque"),
        Enabled("external:missing", "/nowhere/lib.so"),
        Enabled("reference"),
        little_device(little, "good-too", operators="add"),
        little_device(little, "chatty", fault="chatty"),
        little_device(little, "threads-later", fault="thread"),
        little_device(threaded, "threads"),
    ]
    found = run_main(library.name, *devices)
    reasons = {name: item.disabled for name, item in found.items() if item.disabled}
    assert reasons.pop("external:crashes") == "its test ended by SIGSEGV"
    assert "no hardware of that kind" in reasons.pop("external:absent")
    assert "no Prepare of the kind" in reasons.pop("external:opaque")
    assert "of no use" in reasons.pop("external:missing")
    assert reasons == {}
    # A thread begins with the asking; the warm-up model has nothing to be run by it.
    assert found["external:threads-later"] == Found(threads_loaded=0, threads_run=1)
    assert found["external:threads"] == Found(threads_loaded=2, threads_run=2)
    assert found["external:good"] == found["external:chatty"] == found["reference"] == Found()


def test_a_library_that_hangs_is_given_up(little: Path, library: Library) -> None:
    hanging = little_device(little, "hangs", fault="hang-create")
    found = run_main(library.name, hanging, little_device(little, "good"), seconds=2)
    assert found == {
        "external:hangs": Found("its test was not over after 2 s"),
        "external:good": Found(),
    }
