"""The hostile models fail as they say, on both runtimes."""

from __future__ import annotations

import signal

import pytest

from loader_service.writer import hostile

from .running import LITERT, Runtime, call


def test_abort_at_load_aborts(runtime: Runtime) -> None:
    assert runtime.exit_of(hostile.abort_at_load(), [1, 2, 3, 4]) == -signal.SIGABRT


def test_stack_overflow_at_load_ends_in_a_segmentation_fault(runtime: Runtime) -> None:
    assert runtime.exit_of(hostile.stack_overflow_at_load(), [1]) == -signal.SIGSEGV


def test_division_fault_kills_only_with_the_lowest_integer(runtime: Runtime) -> None:
    model = hostile.division_fault()
    assert runtime.run(model, [7])[0].tolist() == [0]
    assert runtime.exit_of(model, [-(2**31)]) == -signal.SIGFPE


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (hostile.custom_operator(), "unresolved custom op: NobodyKnowsThis"),
        (hostile.flex_operator(), "Select TensorFlow op"),
        (hostile.wrong_schema_version(), "schema version 4"),
        (hostile.no_subgraphs(), "No subgraph"),
        (hostile.text_instead(), "not a valid Flatbuffer|model identifier"),
    ],
    ids=["custom", "flex", "version", "no subgraphs", "text"],
)
def test_what_is_refused_at_load(runtime: Runtime, model: bytes, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        runtime.interpreter(model)


@pytest.mark.parametrize(
    "model", [hostile.truncated(), hostile.root_outside()], ids=["truncated", "root outside"]
)
def test_broken_files_are_refused_by_the_runtime_that_verifies(
    runtime: Runtime, model: bytes
) -> None:
    if runtime.package == LITERT:
        with pytest.raises(ValueError, match="not a valid Flatbuffer"):
            runtime.interpreter(model)
    else:
        assert runtime.exit_of(model) == -signal.SIGSEGV


def test_adding_strings_fails_at_each_call(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(hostile.add_strings())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="STRING is unsupported by op Add"):
            call(interpreter, [b"text"])


def test_gather_fails_out_of_range_and_works_again(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(hostile.gather())
    for index in (3, -1, 2**31 - 1):
        with pytest.raises(RuntimeError, match="gather index out of bounds"):
            call(interpreter, [index])
        assert call(interpreter, [1])[0].tolist() == [20]
