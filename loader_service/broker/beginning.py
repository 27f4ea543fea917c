"""What a broker does first: it takes its place, and starts its zygote.

The zygote imports the runtime, which takes longer than anything else of a start. So this imports as
little as it can, and the broker imports the rest, asyncio and gRPC above all, while the zygote
warms up.
"""

from __future__ import annotations

from typing import NamedTuple

from loader_service.broker.zygote_process import ZygoteProcess, start_zygote
from loader_service.sandbox import cgroup, process
from loader_service.sandbox.cgroup_tree import Tree
from loader_service.sandbox.descriptors import allow_many


class Beginning(NamedTuple):
    """What is there before the broker."""

    tree: Tree | None
    """None on a host that gives no cgroups."""
    zygote: ZygoteProcess


def begin(runtime: str) -> Beginning:
    """Begin, in the main thread; raises OSError."""
    process.set_child_subreaper()
    allow_many()
    # First the cgroup: finding it may move this process, and its children belong where it is.
    tree = cgroup.discover()
    return Beginning(tree, start_zygote(runtime))
