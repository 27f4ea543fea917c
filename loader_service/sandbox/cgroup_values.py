"""What the interface files of both versions of cgroups have in common."""

from __future__ import annotations

from pathlib import Path

PERIOD_MICROSECONDS = 100_000
"""In which a cgroup may use its quota of processor time: the kernel's own default."""
SMALLEST_QUOTA_MICROSECONDS = 1_000
"""Less the kernel does not take."""


def quota_of(percent: float) -> int:
    """Return the microseconds of each period that are so much of one processor."""
    return max(int(PERIOD_MICROSECONDS * percent / 100), SMALLEST_QUOTA_MICROSECONDS)


def counter(file: Path, name: str) -> int:
    """Return the number behind `name` in a file of a pair a line; 0 where there is none."""
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
