"""Stopping processes: what they would do next is certain not to have happened meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.support.processes import describe, living, state_of, wait_until_empty

HANG_SECONDS = 20.0


def is_dead(pid: int) -> bool:
    """Whether a process has ended."""
    return not living([pid])


def wait_until_stopped(pid: int) -> None:
    """Wait until a process has stopped."""
    going = wait_until_empty(lambda: [] if state_of(pid) in ("T", "", "Z") else [pid], HANG_SECONDS)
    assert not going, f"not within {HANG_SECONDS} s: the stop of {describe([pid])}"
    assert state_of(pid) == "T", f"{pid} ended instead of stopping"


def stop(pid: int) -> None:
    """Stop a process."""
    os.kill(pid, signal.SIGSTOP)
    wait_until_stopped(pid)


def resume(pids: Iterable[int]) -> None:
    """Let stopped processes go on."""
    for pid in pids:
        if state_of(pid) == "T":
            os.kill(pid, signal.SIGCONT)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for the length of a block."""
    stop(pid)
    try:
        yield
    finally:
        resume([pid])
