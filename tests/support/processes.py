"""Processes and files that a test may leave behind: finding and counting them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Left = TypeVar("Left")

PR_SET_CHILD_SUBREAPER = 36


def children(pid: int | None = None) -> list[int]:
    """Return the living children (zombies too) of a process, default this one."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        try:
            found += [int(child) for child in listing.read_text().split()]
        except OSError:
            continue  # the thread has just ended
    return sorted(found)


def processes_of(uid: int) -> list[int]:
    """Return the processes whose real uid is `uid`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:
            continue
        if any(line.startswith("Uid:") and int(line.split()[1]) == uid for line in lines):
            found.append(int(status.parent.name))
    return sorted(found)


def living(pids: Iterable[int]) -> list[int]:
    """Return those of these processes that run; one that nobody has reaped yet does not."""
    return [pid for pid in pids if state_of(pid) not in ("", "Z", "X")]


def state_of(pid: int) -> str:
    """The letter of a process's state: R, S, D, T (stopped), Z; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def describe(pids: Iterable[int]) -> str:
    """Say what processes are, for a failure message: pid, state and command line."""
    rows = []
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        rows.append(f"{pid} ({state}) {command.strip() or '?'}")
    return "; ".join(rows)


def wait_until_empty(remaining: Callable[[], list[Left]], seconds: float) -> list[Left]:
    """Wait until `remaining()` is empty; returns what is left when the hang bound has passed."""
    deadline = time.monotonic() + seconds
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def become_subreaper() -> None:
    """Make orphans among this process's descendants its children; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER was refused")


def reap_ended() -> None:
    """Collect every child that has ended already."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def kill_all(pids: Iterable[int]) -> None:
    """Kill the processes of that list, and no others."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
