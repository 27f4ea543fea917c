"""Which device runs which operator, as NNAPI's runtime and TFLite's delegates decide it.

Pure logic over plain values: the best device for each operator, then groups of operators that one
device can run together, then the largest of those, if they are worth their hand-overs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.device import DeviceType, Preference, Verdict
from loader_service.devices.model_view import ModelView, NodeView
from loader_service.devices.work import work_of
from loader_service.runtime.verifier.state import KEEPERS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that was asked."""

    name: str
    type: DeviceType
    capabilities: Capabilities
    verdicts: Sequence[Verdict]
    """One for each node."""


class Subset(NamedTuple):
    """Nodes with the same label that can run one after the other, nothing else between them."""

    label: Hashable
    nodes: tuple[int, ...]


def best_devices(
    model: ModelView,
    candidates: Sequence[Candidate],
    preference: Preference = Preference.UNDEFINED,
    *,
    allow_fp16: bool = False,
) -> list[Candidate | None]:
    """Return for each node the device with the least time, or power if that is preferred.

    Of equal ones a CPU is taken, else the first. None where no device supports the node.
    """
    return [
        min(
            (candidate for candidate in candidates if candidate.verdicts[node.index].supported),
            key=lambda candidate: (
                cost(candidate.capabilities, model, node, preference, allow_fp16=allow_fp16),
                candidate.type is not DeviceType.CPU,
            ),
            default=None,
        )
        for node in model.nodes
    ]


def cost(
    capabilities: Capabilities,
    model: ModelView,
    node: NodeView,
    preference: Preference,
    *,
    allow_fp16: bool,
) -> float:
    """Return the figure that devices are compared by for a node."""
    figures: Performance = capabilities.performance(model.kind(node), allow_fp16=allow_fp16)
    low_power = preference is Preference.LOW_POWER
    return figures.power_usage if low_power else figures.execution_time


def independent_subsets(model: ModelView, labels: Sequence[Hashable]) -> list[Subset]:
    """Group the nodes so that the groups can run in order, each all at once.

    TFLite's way (PartitionGraphIntoIndependentNodeSubsets): from what can run now, the first node
    in the file's order decides the label of the next group, which takes all of that label that can
    run then. Operators that hold state keep their order among themselves.
    """
    waiting = [node.index for node in model.nodes]
    not_ready = {tensor for node in model.nodes for tensor in node.outputs if tensor >= 0}
    before = _order_of_stateful(model)
    done: set[int] = set()
    subsets: list[Subset] = []

    def can_run(index: int) -> bool:
        needs = before.get(index)
        return not_ready.isdisjoint(model.nodes[index].inputs) and (needs is None or needs in done)

    while waiting:
        taken: list[int] = []
        label: Hashable = None
        grown = True
        while grown:
            grown = False
            left = []
            for index in waiting:
                if can_run(index) and (not taken or labels[index] == label):
                    label = labels[index]
                    taken.append(index)
                    done.add(index)
                    not_ready.difference_update(model.nodes[index].outputs)
                    grown = True
                else:
                    left.append(index)
            waiting = left
        if not taken:
            raise ValueError("the operators depend on each other in a circle")
        subsets.append(Subset(label, tuple(taken)))
    return subsets


def largest(subsets: Sequence[Subset], most: int, least_nodes: int) -> list[Subset]:
    """Return the `most` subsets with the most nodes, in their order; zero or below: all.

    None with fewer than `least_nodes` nodes. Of equal ones the first are taken.
    """
    by_size = sorted(subsets, key=lambda subset: -len(subset.nodes))
    kept = [subset for subset in by_size if len(subset.nodes) >= least_nodes]
    if most > 0:
        kept = kept[:most]
    return [subset for subset in subsets if subset in kept]


def gain(
    model: ModelView,
    nodes: Sequence[int],
    device: Capabilities,
    cpu: Callable[[int], Performance],
    *,
    allow_fp16: bool,
) -> float:
    """Return how much time a partition saves, in the built-in kernels' multiplications.

    Against the CPU's kernels for each node, and less the hand-over; zero or below: nothing.
    """
    saved = 0.0
    for index in nodes:
        node = model.nodes[index]
        own = device.performance(model.kind(node), allow_fp16=allow_fp16)
        saved += work_of(model, node) * (cpu(index).execution_time - own.execution_time)
    return saved - device.partition_overhead


STATEFUL: Set[str] = frozenset(code.name for code in KEEPERS)
"""Operators that may hold state."""
RUNNING_OTHERS: Set[str] = frozenset({"IF", "WHILE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
"""Operators that run other subgraphs, where there may be such."""


def _order_of_stateful(model: ModelView) -> dict[int, int]:
    """Say for each operator with state which one has to run before it."""
    before = {}
    last = None
    for node in model.nodes:
        if node.operator in STATEFUL | RUNNING_OTHERS or node.is_custom:
            if last is not None:
                before[node.index] = last
            last = node.index
    return before
