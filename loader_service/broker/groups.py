"""The cgroups of workers: each in its origin's, that in its principal's, that in the one of all."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from loader_service.broker.refusal import refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.sandbox import cgroup
from loader_service.sandbox.policy import tasks_for
from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits

if TYPE_CHECKING:
    from loader_service.broker.principals import Principals

NEEDED: Mapping[str, cgroup.Controller] = {
    "cpu_percent": "cpu",
    **{f"{level}_cpu_percent": "cpu" for level in ("origin", "principal", "total")},
    **{f"{level}_memory_bytes": "memory" for level in ("origin", "principal", "total")},
}
"""Limits that only a cgroup can hold, and its controller."""


PART_OF_HOST = 0.75
"""Of the memory that the service could use at most, how much its workers may, unless a setting
says otherwise."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose worker it is: the place in the cgroup tree, and the key of its zygote."""

    principal: int
    origin: str


def path_of(owner: Owner, level: str = "origin") -> str:
    """Where the workers of an origin, or of its principal, are in the tree."""
    principal = f"user-{owner.principal}"
    return principal if level == "principal" else f"{principal}/{cgroup.safe_name(owner.origin)}"


def total_memory(settings: Settings, tree: cgroup.Tree | None) -> int:
    """Return how many bytes all workers may use: the setting, else a part of what there is."""
    if settings.total_memory_bytes is not None:
        return settings.total_memory_bytes
    most = int(psutil.virtual_memory().total)
    above = None if tree is None else tree.memory_above()
    return int((most if above is None else min(most, above)) * PART_OF_HOST)


def share_of_principal(principals: Principals, total: int) -> int | None:
    """Return how many bytes a principal's workers may use: the setting, else an equal share.

    None for an only user, whom the total holds.
    """
    asked = principals.settings.principal_memory_bytes
    if asked is not None or principals.shares == 1:
        return asked
    return total // principals.shares


class Groups:
    """Makes the groups of a broker's workers."""

    def __init__(self, settings: Settings, principals: Principals, tree: cgroup.Tree) -> None:
        self._settings = settings
        self._principals = principals
        self._tree = tree
        self._total = total_memory(settings, tree)
        self._serial = 0

    def make(self, owner: Owner, limits: Limits, tasks: int) -> cgroup.Group:
        """Make a worker's group in its origin's, in its principal's; raises OSError, Refusal."""
        policy = self._principals.policy_for(owner)
        most, models = policy.limits, policy.models_per_process
        path = path_of(owner, "principal")
        share = share_of_principal(self._principals, self._total)
        try:
            self._limit_all()
            self._limit(path, "principal", most, (most.processes or 0) * models, share)
            self._limit(path_of(owner), "origin", most, most.models_per_origin or 0, None)
            self._serial += 1
            return self._tree.create(
                f"{path_of(owner)}/worker-{self._serial}",
                cgroup.GroupLimits(limits.memory_bytes, tasks, limits.cpu_percent),
            )
        except OSError as error:
            # The kernel needs memory for a group, too, and counts it to the levels above.
            if error.errno not in (errno.ENOMEM, errno.EBUSY):
                raise
            raise refuse(
                Cause.OUT_OF_MEMORY,
                "what the origin's and the user's workers may use has no room for another worker",
            ) from None

    def _limit_all(self) -> None:
        """Limit all workers together, which are of principals with different policies."""
        settings = self._principals.settings
        most, memory = settings.total_processes, settings.total_memory_bytes
        policies = (settings.own_policy(), *settings.policies)
        if memory is None:
            each = (item.models_per_process * (item.limits.memory_bytes or 0) for item in policies)
            memory = min(most * max(each), self._total)
        tasks = (item.models_per_process * tasks_for(item.limits.threads or 1) for item in policies)
        self._set("", cgroup.GroupLimits(memory, most * max(tasks), settings.total_cpu_percent))

    def _limit(self, path: str, level: str, each: Limits, models: int, share: int | None) -> None:
        """Limit all workers of a level, which hold at most so many models."""
        memory: int | None = getattr(self._settings, f"{level}_memory_bytes")
        if memory is None:
            memory = min(filter(None, (models * (each.memory_bytes or 0), share)))
        self._set(
            path,
            cgroup.GroupLimits(
                memory_bytes=memory,
                pids=models * tasks_for(each.threads or 1),
                cpu_percent=getattr(self._settings, f"{level}_cpu_percent"),
            ),
        )

    def _set(self, path: str, limits: cgroup.GroupLimits) -> None:
        """Limit a level; one that uses more memory already keeps its limit until it uses less.

        Limits that are set while the service runs are for models that come. Version 1 refuses one
        below what is used, and version 2 would end for it what is there.
        """
        before = self._tree.limits_of(path)
        if limits == before:
            return
        memory, highest = limits.memory_bytes, before.memory_bytes
        is_lower = memory is not None and highest is not None and memory < highest
        if is_lower and (self._tree.memory_usage(path) or 0) > (memory or 0):
            limits = replace(limits, memory_bytes=highest)
        self._tree.limit(path, limits)


def add_layers(worker: Worker, tree: cgroup.Tree | None) -> None:
    """Add to a worker's report what its group holds, or why that is missing."""
    held = tree.layers if tree is not None else frozenset()
    worker.layers = tuple(sorted({*worker.layers, *held}))
    for controller, layer in cgroup.CONTROLLER_LAYERS.items():
        if layer not in held:
            worker.missing[layer] = f"no writable cgroup with the {controller} controller"


def check_enforceable(limits: Limits | Settings, tree: cgroup.Tree | None) -> None:
    """Raise Refusal for a limit that is set and that this host cannot enforce."""
    for name, controller in NEEDED.items():
        if getattr(limits, name, None) is not None and not (tree and tree.holds(controller)):
            raise refuse(
                Cause.UNSUPPORTED,
                f"the limit {name} needs a writable {controller} cgroup, which this host does not "
                "give the service; see `model-loader doctor`",
            )
