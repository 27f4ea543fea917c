"""Stopping processes: what they would do next is certain not to have happened meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import describe, wait_until_empty

HANG_SECONDS = 20.0


def state_of(pid: int) -> str:
    """The letter of a process's state: R, S, D, T (stopped), Z; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_dead(pid: int) -> bool:
    """Whether a process has ended."""
    return state_of(pid) in ("", "Z", "X")


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
