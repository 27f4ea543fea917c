"""A broker's tree of cgroups: groups with limits, what the kernel counts in them, their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, Self

from loader_service.sandbox.layers import Layer

Controller = Literal["memory", "pids", "cpu"]

CONTROLLER_LAYERS: Final[Mapping[Controller, Layer]] = {
    "memory": Layer.CGROUP_MEMORY,
    "pids": Layer.CGROUP_PIDS,
    "cpu": Layer.CGROUP_CPU,
}

_KILL_ROUNDS: Final = 100


MOST_PIDS = 1 << 22
"""The kernel's PID_MAX_LIMIT: there are never more tasks, and it takes no higher limit of them."""


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
        levels = ["", *_levels_above(self.path), self.path]
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


class Tree:
    """The cgroups of one broker."""

    def __init__(self, files: ModuleType, roots: Mapping[str, Path]) -> None:
        """`files` is `cgroup_v1` or `cgroup_v2`; `roots` gives a directory for each controller."""
        self.files = files
        self.roots = dict(roots)
        self.version: int = files.VERSION
        """1 or 2."""
        self.layers = frozenset(
            layer for name, layer in CONTROLLER_LAYERS.items() if name in self.roots
        )
        """Which protections the groups of this tree give."""
        self._limits: dict[str, GroupLimits] = {}
        self._busy: set[str] = set()

    def holds(self, controller: Controller) -> bool:
        """Whether this tree can limit with `controller`."""
        return controller in self.roots

    def create(self, path: str, limits: GroupLimits) -> Group:
        """Make the group `path`, and the levels above it, with its limits. Raises `OSError`.

        The parts of `path` must be names that `safe_name` gave, or made of letters, digits and
        hyphens.
        """
        self._busy.discard(path)
        self._remove_busy()
        made: set[str] = set()
        for level in [*_levels_above(path), path]:
            for controllers, root in self._by_directory():
                directory = root / level
                self.files.open_to_children(directory.parent, controllers)
                with suppress(FileExistsError):
                    directory.mkdir()
                    made.add(level)
            if level in made & self._limits.keys() - {path}:
                self._apply(level, self._limits[level])
        self.limit(path, limits)
        return Group(self, path)

    def limit(self, path: str, limits: GroupLimits) -> None:
        """Set limits of a level, now or as soon as a group makes it exist. Raises `OSError`.

        The empty path is the whole tree. A level that is removed, because its last group was, is
        forgotten. On version 1 a level cannot get a smaller share of the processor than a group
        below it has.
        """
        if self._limits.get(path) == limits:
            return
        if any((root / path).is_dir() for root in self.roots.values()):
            self._apply(path, limits)
        # Last: what the kernel refused is tried again.
        self._limits[path] = limits

    def limits_of(self, path: str) -> GroupLimits:
        """Return what was set for a level."""
        return self._limits.get(path, GroupLimits())

    def remove_group(self, path: str) -> bool:
        """See `Group.remove`."""
        self._limits.pop(path, None)
        self._busy.add(path)
        self._remove_busy()
        return path not in self._busy

    def remove(self, patience_seconds: float = 1.0) -> bool:
        """Kill what is left in the tree and remove it; waits as long as that for it to die.

        Returns whether all of it is gone. On version 2 the broker itself stays in its leaf.
        """
        end = time.monotonic() + patience_seconds
        while True:
            for root in set(self.roots.values()):
                _kill_below(root)
                remove_below(root)
            gone = not any(root.is_dir() for root in self.roots.values())
            if gone or time.monotonic() > end:
                return gone
            time.sleep(0.005)

    def memory_usage(self, path: str) -> int | None:
        """Bytes charged to a level now, 0 for one that is not there; `None` where none counts."""
        root = self.roots.get("memory")
        if root is None:
            return None
        try:
            return int(self.files.memory_usage(root / path))
        except FileNotFoundError:
            return 0

    def memory_above(self) -> int | None:
        """The tightest limit on memory of the cgroups that this tree is in; `None` without one."""
        root = self.roots.get("memory")
        limit = None if root is None else self.files.memory_limit_of(root.parent)
        return None if limit is None else int(limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _apply(self, path: str, limits: GroupLimits) -> None:
        if limits.memory_bytes is not None and "memory" in self.roots:
            self.files.set_memory(self.roots["memory"] / path, limits.memory_bytes)
        if limits.pids is not None and "pids" in self.roots:
            most = min(limits.pids, MOST_PIDS)
            (self.roots["pids"] / path / "pids.max").write_text(str(most))
        if limits.cpu_percent is not None and "cpu" in self.roots:
            self.files.set_cpu(self.roots["cpu"] / path, limits.cpu_percent)

    def _by_directory(self) -> Iterator[tuple[list[str], Path]]:
        for root in dict.fromkeys(self.roots.values()):
            yield [name for name, at in self.roots.items() if at == root], root

    def _remove_busy(self) -> None:
        for path in list(self._busy):
            if all(_remove(root / path) for root in set(self.roots.values())):
                self._busy.discard(path)
                for level in reversed(_levels_above(path)):
                    removed = [_remove(root / level) for root in set(self.roots.values())]
                    if all(removed):
                        self._limits.pop(level, None)


def processes_of(directory: Path) -> list[int]:
    """The processes in a cgroup directory that this pid namespace can see."""
    # A process that this pid namespace cannot see is listed as 0, which kill(2) takes for a group.
    listed = (int(line) for line in (directory / "cgroup.procs").read_text().split())
    return [pid for pid in listed if pid > 0]


def remove_below(directory: Path) -> None:
    """Remove a cgroup directory and everything below it that is empty."""
    for child in _children(directory):
        remove_below(child)
    _remove(directory)


def _levels_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _children(directory: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir()]
    except OSError:
        return []


def _kill_below(directory: Path) -> None:
    for child in _children(directory):
        _kill_below(child)
    with suppress(OSError):
        for pid in processes_of(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
