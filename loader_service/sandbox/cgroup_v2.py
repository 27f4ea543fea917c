"""The interface files of cgroup version 2, the unified hierarchy.

Source: Documentation/admin-guide/cgroup-v2.rst of Linux.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from loader_service.sandbox.cgroup_values import PERIOD_MICROSECONDS, counter, quota_of

VERSION = 2


def available(directory: Path) -> frozenset[str]:
    """The controllers that `directory` could hand to its children."""
    return frozenset((directory / "cgroup.controllers").read_text().split())


def is_root(directory: Path) -> bool:
    """Whether this is the root of the hierarchy, which may have both processes and children."""
    return not (directory / "cgroup.type").exists()


def open_to_children(directory: Path, controllers: Collection[str]) -> None:
    """Let the children of `directory` use `controllers`; it must have no processes of its own."""
    control = directory / "cgroup.subtree_control"
    missing = set(controllers) - set(control.read_text().split())
    if missing:
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))


def set_memory(directory: Path, size: int) -> None:
    """Cap memory at `size` bytes and allow no swap where the kernel counts it."""
    (directory / "memory.max").write_text(str(size))
    swap = directory / "memory.swap.max"
    if swap.exists():
        swap.write_text("0")


def set_cpu(directory: Path, percent: float) -> None:
    """Cap processor time at `percent` of one processor."""
    (directory / "cpu.max").write_text(f"{quota_of(percent)} {PERIOD_MICROSECONDS}")


def memory_limit_of(directory: Path) -> int | None:
    """The tightest limit in bytes of this cgroup and those above; `None` without one."""
    limits = []
    while (file := directory / "memory.max").exists():
        if (limit := file.read_text().strip()) != "max":
            limits.append(int(limit))
        directory = directory.parent
    return min(limits, default=None)


def memory_usage(directory: Path) -> int:
    """Bytes charged now, page cache included."""
    return int((directory / "memory.current").read_text())


def memory_peak(directory: Path) -> int | None:
    """The most bytes that were charged at once; `None` before Linux 5.19."""
    file = directory / "memory.peak"
    return int(file.read_text()) if file.exists() else None


def oom_kills(directory: Path) -> int:
    """Processes of this cgroup that were killed at a memory limit, its own or one above."""
    return counter(directory / "memory.events", "oom_kill")


def memory_hit(directory: Path) -> bool:
    """Whether memory ran out at this cgroup's own limit; never known before Linux 5.2."""
    file = directory / "memory.events.local"
    return file.exists() and counter(file, "oom") > 0


def cpu_seconds(directory: Path) -> float:
    """Processor time used so far, by everything below too."""
    return counter(directory / "cpu.stat", "usage_usec") / 1e6


def throttled_periods(directory: Path) -> int:
    """How often the processor share ran out within a period."""
    return counter(directory / "cpu.stat", "nr_throttled")
