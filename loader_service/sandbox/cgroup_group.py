"""One cgroup: its limits, its processes, and what the kernel counts in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loader_service.sandbox.cgroup_directory import processes_of

if TYPE_CHECKING:
    from loader_service.sandbox.cgroup_tree import Tree

_KILL_ROUNDS: Final = 100


@dataclass(frozen=True)
class GroupLimits:
    """Limits of one group and everything below it. `None` sets none at this level."""

    memory_bytes: int | None = None
    """Memory with page cache and kernel memory, in bytes; no swap on top."""
    pids: int | None = None
    """Threads and processes."""
    cpu_percent: float | None = None
    """Processor time in percent of one processor: 150 is one and a half."""


class Group:
    """One cgroup: a directory in each hierarchy of its tree."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree = tree
        self.path = path
        """Below the tree, as `principal/origin/worker`."""

    def add(self, pid: int) -> None:
        """Move a process and its threads here. Memory it touched before stays charged elsewhere.

        Raises `OSError`, `ProcessLookupError` for a process that has ended.
        """
        for directory in self._directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def processes(self) -> list[int]:
        """The ids of the processes in this group itself."""
        return processes_of(next(self._directories()))

    def memory_usage(self) -> int | None:
        """Bytes charged now; `None` where the memory controller is not held."""
        directory = self._of("memory")
        return None if directory is None else int(self._tree.files.memory_usage(directory))

    def memory_peak(self) -> int | None:
        """The most bytes charged at once; `None` where the kernel does not tell."""
        directory = self._of("memory")
        peak = None if directory is None else self._tree.files.memory_peak(directory)
        return None if peak is None else int(peak)

    def oom_kills(self) -> int:
        """Processes of this group killed at a memory limit, its own or one above; 0 without one."""
        directory = self._of("memory")
        return 0 if directory is None else int(self._tree.files.oom_kills(directory))

    def memory_hit(self) -> tuple[int, int | None]:
        """The tightest level whose memory ran out: its depth, and its limit in bytes.

        Depth 0 is the tree itself, which holds everything. Where nothing is known it is this group.
        """
        root = self._tree.roots.get("memory")
        levels = ["", *levels_above(self.path), self.path]
        hit = len(levels) - 1
        if root is not None:
            for depth in range(hit, -1, -1):
                if self._tree.files.memory_hit(root / levels[depth]):
                    hit = depth
                    break
        return hit, self._tree.limits_of(levels[hit]).memory_bytes

    def cpu_seconds(self) -> float | None:
        """Processor time used so far in seconds; `None` where it is not counted."""
        directory = self._of("cpuacct" if self._tree.version == 1 else "cpu")
        return None if directory is None else float(self._tree.files.cpu_seconds(directory))

    def throttled_periods(self) -> int:
        """How often the processor share ran out within a tenth of a second; 0 without one."""
        directory = self._of("cpu")
        return 0 if directory is None else int(self._tree.files.throttled_periods(directory))

    def limit(self, limits: GroupLimits) -> None:
        """Set limits that are not `None`. Raises `OSError`."""
        self._tree.limit(self.path, limits)

    def kill(self) -> None:
        """Kill every process in this group, and those that they start meanwhile."""
        at_once = next(self._directories()) / "cgroup.kill"
        with suppress(OSError):  # version 1, or Linux before 5.14
            at_once.write_text("1")
            return
        for _ in range(_KILL_ROUNDS):
            processes = self.processes()
            if not processes:
                return
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def remove(self) -> bool:
        """Remove this group and the levels above it that are empty now; never waits.

        Returns `False` when it is still busy, for example because its process was not reaped yet;
        the tree then tries again whenever it makes or removes another group.
        """
        return self._tree.remove_group(self.path)

    def _directories(self) -> Iterator[Path]:
        return (root / self.path for root in dict.fromkeys(self._tree.roots.values()))

    def _of(self, controller: str) -> Path | None:
        root = self._tree.roots.get(controller)
        return None if root is None else root / self.path


def levels_above(path: str) -> list[str]:
    """Return the paths of the levels that a group lies in, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
