"""The exit status says what kind of thing went wrong."""

from __future__ import annotations

import pytest

import model_loader as ml
from model_loader_cli.exits import Exit, exit_for
from model_loader_wire.causes import TABLE, Cause

# A line for every cause: a new one must be decided here.
EXPECTED = {
    Cause.BAD_SOURCE: Exit.USAGE,
    Cause.INVALID_INPUT: Exit.USAGE,
    Cause.INVALID_MODEL: Exit.FAILED,
    Cause.UNSUPPORTED: Exit.FAILED,
    Cause.TIMEOUT: Exit.REFUSED,
    Cause.LIMIT: Exit.REFUSED,
    Cause.OUT_OF_MEMORY: Exit.REFUSED,
    Cause.CPU_TIME: Exit.REFUSED,
    Cause.CRASH_LOOP: Exit.REFUSED,
    Cause.FAILED: Exit.FAILED,
    Cause.CRASHED: Exit.FAILED,
    Cause.PROTOCOL_VIOLATION: Exit.FAILED,
    Cause.POLICY_VIOLATION: Exit.REFUSED,
    Cause.FORBIDDEN: Exit.REFUSED,
    Cause.NOT_ALLOWED: Exit.REFUSED,
    Cause.NOT_FOUND: Exit.FAILED,
    Cause.CLOSED: Exit.FAILED,
    Cause.LOST: Exit.FAILED,
    Cause.KILLED: Exit.FAILED,
    Cause.CANCELLED: Exit.FAILED,
    Cause.UNAVAILABLE: Exit.NO_SERVICE,
    Cause.INTERNAL: Exit.FAILED,
}


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_an_exit_status(cause: Cause) -> None:
    error: ml.ModelLoaderError = getattr(ml, TABLE[cause].error)("said", cause=cause)
    assert exit_for(error) is EXPECTED[cause]


def test_the_statuses_are_those_that_the_help_names() -> None:
    assert {status.name: int(status) for status in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NO_SERVICE": 3,
        "REFUSED": 4,
        "INTERRUPTED": 130,
        "NOBODY_READS": 141,
    }
