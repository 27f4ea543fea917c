"""The interface files of cgroup version 1, one hierarchy a controller.

Source: Documentation/admin-guide/cgroup-v1/ of Linux. The memory controller counts in units of
pages, so a limit that is not a multiple of the page size is rounded down.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from pathlib import Path

from loader_service.sandbox.cgroup_values import PERIOD_MICROSECONDS, counter, quota_of

VERSION = 1

NO_LIMIT = 1 << 62
"""Memory without a limit has one near the largest number, rounded to pages."""
CHARGED_AT_ONCE = 256 << 10
"""Bytes that the kernel charges in one step, so that a peak may stay so far below the limit."""


def open_to_children(directory: Path, controllers: Collection[str]) -> None:
    """Let limits in `directory` hold for everything below it, before it has children."""
    hierarchy = directory / "memory.use_hierarchy"
    if "memory" in controllers and hierarchy.read_text().strip() != "1":
        hierarchy.write_text("1")


def set_memory(directory: Path, size: int) -> None:
    """Cap memory at `size` bytes, swap included where the kernel counts it."""
    limit = directory / "memory.limit_in_bytes"
    with_swap = directory / "memory.memsw.limit_in_bytes"
    files = [limit, with_swap] if with_swap.exists() else [limit]
    try:
        _write_all(files, size)
    except OSError as error:
        # Memory alone may not exceed memory with swap: upwards, the other one goes first.
        if error.errno != errno.EINVAL or len(files) == 1:
            raise
        _write_all(reversed(files), size)


def set_cpu(directory: Path, percent: float) -> None:
    """Cap processor time at `percent` of one processor."""
    (directory / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
    quota = quota_of(percent)
    file = directory / "cpu.cfs_quota_us"
    try:
        file.write_text(str(quota))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # More than a cgroup above has: that one's limit is the tighter and holds here too.
        file.write_text("-1")


def memory_limit_of(directory: Path) -> int | None:
    """The tightest limit in bytes of this cgroup and those above; `None` without one."""
    limit = counter(directory / "memory.stat", "hierarchical_memory_limit")
    return limit if 0 < limit < NO_LIMIT else None


def memory_usage(directory: Path) -> int:
    """Bytes charged now, page cache included."""
    return int((directory / "memory.usage_in_bytes").read_text())


def memory_peak(directory: Path) -> int | None:
    """The most bytes that were charged at once."""
    return int((directory / "memory.max_usage_in_bytes").read_text())


def oom_kills(directory: Path) -> int:
    """Processes of this cgroup that were killed at a memory limit, its own or one above."""
    return counter(directory / "memory.oom_control", "oom_kill")


def memory_hit(directory: Path) -> bool:
    """Whether this cgroup's own limit was reached. Newer kernels do not count in memory.failcnt."""
    limit = int((directory / "memory.limit_in_bytes").read_text())
    peak = memory_peak(directory)
    return peak is not None and peak > limit - CHARGED_AT_ONCE


def cpu_seconds(directory: Path) -> float:
    """Processor time used so far, by everything below too."""
    return int((directory / "cpuacct.usage").read_text()) / 1e9


def throttled_periods(directory: Path) -> int:
    """How often the processor share ran out within a period."""
    return counter(directory / "cpu.stat", "nr_throttled")


def _write_all(files: Iterable[Path], size: int) -> None:
    for file in files:
        file.write_text(str(size))
