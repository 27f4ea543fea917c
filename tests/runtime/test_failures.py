"""Reading the runtimes' messages."""

from __future__ import annotations

import pytest

from loader_service.runtime.failures import (
    DelegateFailed,
    InvalidModel,
    LimitReached,
    ModelFailed,
    RuntimeFailure,
    Stage,
    UnsupportedModel,
    failure_from,
    readable,
)
from model_loader_wire.causes import Cause

MESSAGES = [
    ("The model is not a valid Flatbuffer buffer", Stage.PARSE, InvalidModel),
    ("Model provided is schema version 2 not equal to supported version 3.\n", Stage.PARSE, None),
    ("Unsupported data type 18 in tensor\n", Stage.PARSE, UnsupportedModel),
    ("Op builtin_code out of range: 206. Are you", Stage.PARSE, UnsupportedModel),
    ("Didn't find op for builtin opcode 'ADD' version '9'.", Stage.PARSE, UnsupportedModel),
    ("Encountered unresolved custom op: Sinh.\nSee", Stage.PREPARE, UnsupportedModel),
    ("Select TensorFlow op(s), included in", Stage.PREPARE, UnsupportedModel),
    ("add.cc:439 Type STRING is unsupported by op Add.", Stage.RUN, UnsupportedModel),
    ("XNNPack delegate failed to reshape runtimeNode number 3", Stage.PREPARE, DelegateFailed),
    ("Node number 1 (TfLiteXNNPackDelegate) failed to invoke.", Stage.RUN, DelegateFailed),
    ("Tensor at index 2 was optional but was expected\nNode", Stage.PREPARE, ModelFailed),
    ("gather index out of boundsNode number 0 (GATHER)", Stage.RUN, ModelFailed),
    ("", Stage.PREPARE, ModelFailed),
    ("", Stage.PARSE, InvalidModel),
]


@pytest.mark.parametrize(("message", "stage", "expected"), MESSAGES)
def test_messages_become_types(
    message: str, stage: Stage, expected: type[RuntimeFailure] | None
) -> None:
    failure = failure_from(RuntimeError(message), stage)
    assert type(failure) is (expected or InvalidModel)
    assert str(failure)


def test_typed_failures_stay_what_they_are() -> None:
    failure = LimitReached("…", "memory_bytes", 2, 1)
    assert failure_from(failure, Stage.RUN) is failure


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("gather index out of boundsNode number 0 (GATHER)", "gather index out of bounds. Node"),
        ("by op Add.Node number 0 (ADD) failed to invoke.", "by op Add. Node number 0 (ADD)"),
        ("One.\nTwo.One.\nTwo.", "One. Two."),
        ("a\x1b[31mb", "a\\x1b[31mb"),
    ],
)
def test_messages_are_made_readable(message: str, expected: str) -> None:
    assert readable(message).startswith(expected)


def test_what_is_said_twice_is_said_once() -> None:
    assert readable("It failed to prepare.It failed to prepare.") == "It failed to prepare."


def test_each_failure_has_its_cause() -> None:
    causes: dict[type[RuntimeFailure], Cause] = {
        InvalidModel: Cause.INVALID_MODEL,
        UnsupportedModel: Cause.UNSUPPORTED,
        ModelFailed: Cause.FAILED,
        DelegateFailed: Cause.FAILED,
        LimitReached: Cause.LIMIT,
    }
    assert {failure: failure.cause for failure in causes} == causes
