"""A broker's tree of cgroups: groups are made in it, limited at each level, and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, Self

from loader_service.sandbox.cgroup_directory import kill_below, remove, remove_below
from loader_service.sandbox.cgroup_group import Group, GroupLimits, levels_above
from loader_service.sandbox.layers import Layer

Controller = Literal["memory", "pids", "cpu"]

CONTROLLER_LAYERS: Final[Mapping[Controller, Layer]] = {
    "memory": Layer.CGROUP_MEMORY,
    "pids": Layer.CGROUP_PIDS,
    "cpu": Layer.CGROUP_CPU,
}

MOST_PIDS = 1 << 22
"""The kernel's PID_MAX_LIMIT: there are never more tasks, and it takes no higher limit of them."""


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
        try:
            self._make(path)
            self.limit(path, limits)
        except OSError:
            self.remove_group(path)  # what there is of it by then
            raise
        return Group(self, path)

    def _make(self, path: str) -> None:
        made: set[str] = set()
        for level in [*levels_above(path), path]:
            for controllers, root in self._by_directory():
                directory = root / level
                self.files.open_to_children(directory.parent, controllers)
                with suppress(FileExistsError):
                    directory.mkdir()
                    made.add(level)
            if level in made & self._limits.keys() - {path}:
                self._apply(level, self._limits[level])

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
                kill_below(root)
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
            if all(remove(root / path) for root in set(self.roots.values())):
                self._busy.discard(path)
                for level in reversed(levels_above(path)):
                    removed = [remove(root / level) for root in set(self.roots.values())]
                    if all(removed):
                        self._limits.pop(level, None)
