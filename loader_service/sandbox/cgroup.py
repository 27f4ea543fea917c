"""Cgroups around workers: what the broker puts around them from outside.

The tree hangs below the broker's own cgroup, `model-loader-<pid>-<start time>/` in each hierarchy,
and its groups nest as `principal/origin/worker`: a limit at any level holds for all below it. Only
controllers that could really be written to are claimed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, Self

from loader_service.sandbox import cgroup_mounts, cgroup_v1, cgroup_v2, delegate
from loader_service.sandbox.layers import Layer

Controller = Literal["memory", "pids", "cpu"]

CONTROLLER_LAYERS: Final[Mapping[Controller, Layer]] = {
    "memory": Layer.CGROUP_MEMORY,
    "pids": Layer.CGROUP_PIDS,
    "cpu": Layer.CGROUP_CPU,
}

_NAME: Final = "model-loader"
_STALE: Final = re.compile(rf"{_NAME}-(\d+)-(\d+)")
_BROKER_LEAF: Final = f"{_NAME}-broker"
_LONGEST_NAME: Final = 200
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
        return _processes(next(self._directories()))

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

    def pids_refused(self) -> int:
        """How often a new thread or process was refused at a limit; 0 without one."""
        directory = self._of("pids")
        if directory is None:
            return 0
        name, _, count = (directory / "pids.events").read_text().partition(" ")
        return int(count.split()[0]) if name == "max" else 0

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

        On version 1 a level cannot get a smaller share of the processor than a group below it has.
        """
        self._limits[path] = limits
        if any((root / path).is_dir() for root in self.roots.values()):
            self._apply(path, limits)

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
                _remove_below(root)
            gone = not any(root.is_dir() for root in self.roots.values())
            if gone or time.monotonic() > end:
                return gone
            time.sleep(0.005)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _apply(self, path: str, limits: GroupLimits) -> None:
        if limits.memory_bytes is not None and "memory" in self.roots:
            self.files.set_memory(self.roots["memory"] / path, limits.memory_bytes)
        if limits.pids is not None and "pids" in self.roots:
            (self.roots["pids"] / path / "pids.max").write_text(str(limits.pids))
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
                    for root in set(self.roots.values()):
                        _remove(root / level)


def discover() -> Tree | None:
    """Make this broker's tree where the host lets it; `None` where it lets nothing be limited.

    Trees of brokers that are gone are removed on the way. On version 2 this process and its
    children move into a leaf, because a cgroup with processes cannot have limited children. Where
    nothing is writable, systemd is asked for a cgroup that is; without systemd this costs nothing.
    """
    tree = _discover_own()
    if tree is None and delegate.move_to_own_scope():
        tree = _discover_own()
    return tree


def _discover_own() -> Tree | None:
    own = cgroup_mounts.own_cgroups()
    tree = None
    if own.version_2 is not None:
        tree = discover_version_2(own.version_2)
    if tree is None:
        tree = discover_version_1(own.version_1)
    return tree


def discover_version_1(own: Mapping[str, Path]) -> Tree | None:
    """A tree of the version 1 hierarchies among `own` that can be written to."""
    roots: dict[str, Path] = {}
    for controller in (*CONTROLLER_LAYERS, "cpuacct"):
        parent = own.get(controller)
        if parent is None:
            continue
        sweep_stale(parent)
        root = parent / own_name()
        with suppress(OSError):
            root.mkdir(exist_ok=True)
            cgroup_v1.open_to_children(root, [controller])
            roots[controller] = root
    tree = Tree(cgroup_v1, roots)
    if tree.layers:
        return tree
    tree.remove()
    return None


def discover_version_2(
    own: Path, wanted: frozenset[str] = frozenset(CONTROLLER_LAYERS)
) -> Tree | None:
    """A tree below `own` in the unified hierarchy, if that has any of the controllers `wanted`."""
    # A broker that was started from another one's leaf belongs beside it.
    if own.name == _BROKER_LEAF:
        own = own.parent
    try:
        controllers = cgroup_v2.available(own) & wanted
        if not controllers:
            return None
        sweep_stale(own)
        if not cgroup_v2.is_root(own):
            _move_to_leaf(own)
        cgroup_v2.open_to_children(own, controllers)
        root = own / own_name()
        root.mkdir(exist_ok=True)
    except OSError:
        return None
    return Tree(cgroup_v2, dict.fromkeys(sorted(controllers), root))


def sweep_stale(directory: Path) -> list[str]:
    """Remove the empty trees that brokers which are gone left in `directory`; returns their names.

    Workers die with their broker, so a tree that still has processes may belong to a broker of
    another pid namespace and is left alone.
    """
    swept = []
    with suppress(OSError):
        for child in list(directory.iterdir()):
            match = _STALE.fullmatch(child.name)
            if match and start_time(int(match[1])) != int(match[2]):
                _remove_below(child)
                if not child.exists():
                    swept.append(child.name)
    return swept


def own_name() -> str:
    """The name of this process's tree: its id and start time, so that no other ever has it."""
    return f"{_NAME}-{os.getpid()}-{start_time(os.getpid())}"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; `None` for one that does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def safe_name(text: str) -> str:
    """A directory name for any text (an origin): different texts get different names.

    Letters, digits, hyphens and underscores stay, other bytes become `%xx`; a long text is cut and
    ends in its hash. The prefix keeps it apart from the kernel's own files.
    """
    escaped = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or chr(byte) in "-_" else f"%{byte:02x}"
        for byte in text.encode("utf-8", "surrogatepass")
    )
    if len(escaped) > _LONGEST_NAME:
        digest = hashlib.sha256(escaped.encode()).hexdigest()[:32]
        escaped = f"{escaped[:_LONGEST_NAME]}%{digest}"
    return f"origin-{escaped}"


def _move_to_leaf(own: Path) -> None:
    """Move the processes of `own` into a leaf. Raises `OSError` when others' are among them."""
    processes = _processes(own)
    if strangers := [pid for pid in processes if not _is_ours(pid)]:
        raise OSError(errno.EBUSY, f"the cgroup also holds processes {strangers}")
    leaf = own / _BROKER_LEAF
    leaf.mkdir(exist_ok=True)
    for pid in processes:
        with suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _is_ours(pid: int) -> bool:
    """Whether `pid` is this process or descends from it, or has just ended."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return True
        pid = int(fields[1])
    return pid == os.getpid()


def _processes(directory: Path) -> list[int]:
    # A process that this pid namespace cannot see is listed as 0, which kill(2) takes for a group.
    listed = (int(line) for line in (directory / "cgroup.procs").read_text().split())
    return [pid for pid in listed if pid > 0]


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
        for pid in _processes(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _remove_below(directory: Path) -> None:
    for child in _children(directory):
        _remove_below(child)
    _remove(directory)


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
