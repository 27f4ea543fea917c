"""Cgroup trees of brokers that are gone: finding them."""

from __future__ import annotations

import re
from pathlib import Path

from loader_service.sandbox.cgroup import start_time
from loader_service.sandbox.cgroup_mounts import own_cgroups

TREE = re.compile(r"model-loader-(\d+)-(\d+)")
"""A tree's name: its broker's process id and start time."""


def orphaned_trees() -> set[Path]:
    """Return the trees beside this process's own cgroups whose brokers have ended."""
    own = own_cgroups()
    parents = {*own.version_1.values(), *([own.version_2] if own.version_2 else [])}
    found = set()
    for parent in parents:
        try:
            children = list(parent.iterdir())
        except OSError:
            continue
        for child in children:
            match = TREE.fullmatch(child.name)
            if match and start_time(int(match[1])) != int(match[2]):
                found.add(child)
    return found
