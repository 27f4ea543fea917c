"""What one process uses, by the kernel's count."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from loader_service.sandbox.cgroup import Group


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker uses by the kernel's count."""

    memory_bytes: int
    cpu_seconds: float


class Meter:
    """Reads what a process uses; zeros once it is dead."""

    def __init__(self, pid: int) -> None:
        """Begin with a process that has done nothing yet."""
        self._process = psutil.Process(pid)
        self._inherited_bytes = self._private_bytes()

    def own_bytes(self) -> int:
        """Memory beyond what the zygote already had, as RLIMIT_DATA counts."""
        return self._private_bytes() - self._inherited_bytes

    def _private_bytes(self) -> int:
        """Resident memory that is no file's; shared with the zygote as long as none writes it."""
        try:
            memory = self._process.memory_info()
        except psutil.Error:
            return 0
        return int(memory.rss - memory.shared)

    def usage(self, group: Group | None) -> Usage:
        """Return what the process uses now, its memory as its group counts it."""
        try:
            times = self._process.cpu_times()
            memory = group.memory_usage() if group else None
            if memory is None:
                memory = int(self._process.memory_info().rss)
        except (psutil.Error, OSError):
            return Usage(0, 0)
        return Usage(memory, times.user + times.system)
