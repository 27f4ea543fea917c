"""The cgroups of workers: one each, inside the one that holds all of their principal."""

from __future__ import annotations

from dataclasses import dataclass

from loader_service.broker.refusal import refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.sandbox import cgroup
from loader_service.sandbox.policy import tasks_for
from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose worker it is: the place in the cgroup tree, and the key of its zygote."""

    principal: int
    origin: str


class Groups:
    """Makes the groups of a broker's workers."""

    def __init__(self, settings: Settings, tree: cgroup.Tree) -> None:
        self._settings = settings
        self._tree = tree
        self._limited: set[int] = set()
        self._serial = 0

    def make(self, owner: Owner, limits: Limits, tasks: int) -> cgroup.Group:
        """Make a worker's group; its principal's holds all of them together."""
        principal = f"user-{owner.principal}"
        if owner.principal not in self._limited:
            self._limited.add(owner.principal)
            most, processes = self._settings.limits, self._settings.limits.processes or 0
            self._tree.limit(
                principal,
                cgroup.GroupLimits(
                    memory_bytes=processes * (most.memory_bytes or 0),
                    pids=processes * tasks_for(most.threads or 1),
                ),
            )
        self._serial += 1
        return self._tree.create(
            f"{principal}/{cgroup.safe_name(owner.origin)}/worker-{self._serial}",
            cgroup.GroupLimits(limits.memory_bytes, tasks, limits.cpu_percent),
        )


def add_layers(worker: Worker, tree: cgroup.Tree | None) -> None:
    """Add to a worker's report what its group holds, or why that is missing."""
    held = tree.layers if tree is not None else frozenset()
    worker.layers = tuple(sorted({*worker.layers, *held}))
    for controller, layer in cgroup.CONTROLLER_LAYERS.items():
        if layer not in held:
            worker.missing[layer] = f"no writable cgroup with the {controller} controller"


def check_enforceable(limits: Limits, tree: cgroup.Tree | None) -> None:
    """Raise Refusal for a limit that this host cannot enforce."""
    if limits.cpu_percent is not None and not (tree and tree.holds("cpu")):
        raise refuse(
            Cause.UNSUPPORTED,
            "the limit cpu_percent needs a writable cpu cgroup, which this host does not give "
            "the service; see `model-loader doctor`",
        )
