"""Cgroups around workers: what the broker puts around them from outside.

The tree hangs below the broker's own cgroup, `model-loader-<pid>-<start time>/` in each hierarchy,
and its groups nest as `principal/origin/worker`: a limit at any level holds for all below it. Only
controllers that could really be written to are claimed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from loader_service.sandbox import cgroup_mounts, cgroup_v1, cgroup_v2, delegate
from loader_service.sandbox.cgroup_directory import processes_of, remove_below
from loader_service.sandbox.cgroup_group import Group, GroupLimits
from loader_service.sandbox.cgroup_names import (
    BROKER_LEAF,
    is_stale,
    own_name,
    safe_name,
    start_time,
)
from loader_service.sandbox.cgroup_tree import CONTROLLER_LAYERS, Controller, Tree

__all__ = [
    "CONTROLLER_LAYERS",
    "Controller",
    "Group",
    "GroupLimits",
    "Tree",
    "discover",
    "discover_version_1",
    "discover_version_2",
    "own_name",
    "safe_name",
    "start_time",
    "sweep_stale",
]


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
    if own.name == BROKER_LEAF:
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
            if is_stale(child.name):
                remove_below(child)
                if not child.exists():
                    swept.append(child.name)
    return swept


def _move_to_leaf(own: Path) -> None:
    """Move the processes of `own` into a leaf. Raises `OSError` when others' are among them."""
    processes = processes_of(own)
    if strangers := [pid for pid in processes if not _is_ours(pid)]:
        raise OSError(errno.EBUSY, f"the cgroup also holds processes {strangers}")
    leaf = own / BROKER_LEAF
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
