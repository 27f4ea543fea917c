"""A directory of a cgroup hierarchy: the processes in it, their end, and its own."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def processes_of(directory: Path) -> list[int]:
    """The processes in a cgroup directory that this pid namespace can see."""
    # A process that this pid namespace cannot see is listed as 0, which kill(2) takes for a group.
    listed = (int(line) for line in (directory / "cgroup.procs").read_text().split())
    return [pid for pid in listed if pid > 0]


def kill_below(directory: Path) -> None:
    """Kill every process in a cgroup directory and below it that can be seen."""
    for child in _children(directory):
        kill_below(child)
    with suppress(OSError):
        for pid in processes_of(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def remove(directory: Path) -> bool:
    """Remove a cgroup directory; returns whether it is gone, and not busy."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_below(directory: Path) -> None:
    """Remove a cgroup directory and everything below it that is empty."""
    for child in _children(directory):
        remove_below(child)
    remove(directory)


def _children(directory: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir()]
    except OSError:
        return []
