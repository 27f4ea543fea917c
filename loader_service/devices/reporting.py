"""The report on a model's devices, made from its plan and from what its interpreter shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loader_service.devices.catalogue import REFERENCE, XNNPACK
from loader_service.devices.compiled import Compiled, CompiledPlan
from loader_service.devices.cpu import nodes_of
from loader_service.devices.device import Device
from loader_service.devices.model_view import ModelView
from loader_service.runtime.kernels import Delegated
from model_loader_wire.delegation import (
    DEVICES,
    NAME_LENGTH,
    OPERATORS,
    PARTITIONS,
    Delegation,
    DeviceFacts,
    PartitionFacts,
)


def report(compiled: CompiledPlan, taken: Sequence[Delegated]) -> Delegation:
    """Say which device runs which part; `taken` is what delegates have in the interpreter.

    What no partition of the plan has, XNNPACK's delegate has, or else the built-in kernels.
    """
    model = compiled.model
    partitions = [_of_device(model, item) for item in compiled.partitions]
    ours = {index for item in compiled.partitions for index in item.partition.nodes}
    rest = set(range(len(model.nodes))) - ours
    fast = [nodes_of(model, item) & rest for item in taken]
    partitions += [_of_kernels(model, XNNPACK, nodes) for nodes in fast if nodes]
    slow = rest.difference(*fast)
    if slow:
        partitions.append(_of_kernels(model, REFERENCE, slow))
    plan = compiled.plan
    return Delegation(
        len(model.nodes),
        tuple(_fewer(partitions)),
        tuple(_facts(device) for device in plan.asked[:DEVICES]),
        tuple(plan.reasons),
        tuple(plan.steps),
    )


def _of_device(model: ModelView, item: Compiled) -> PartitionFacts:
    cached = item.executable.cache_hit
    return PartitionFacts(
        item.device.name,
        len(item.partition.nodes),
        _operators(model, item.partition.nodes),
        item.compile_seconds,
        "" if cached is None else "hit" if cached else "miss",
        item.run_seconds,
    )


def _of_kernels(model: ModelView, name: str, nodes: Iterable[int]) -> PartitionFacts:
    chosen = sorted(nodes)
    return PartitionFacts(name, len(chosen), _operators(model, chosen))


def _operators(model: ModelView, nodes: Iterable[int]) -> dict[str, int]:
    counts = Counter(model.nodes[index].operator[:NAME_LENGTH] for index in nodes)
    # Not Counter.most_common, which would import a module, and here no file can be opened.
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:OPERATORS])


def _fewer(partitions: list[PartitionFacts]) -> list[PartitionFacts]:
    """Leave out the smallest where there are more than a report takes."""
    if len(partitions) <= PARTITIONS:
        return partitions
    return sorted(partitions, key=lambda item: -item.nodes)[:PARTITIONS]


def _facts(device: Device) -> DeviceFacts:
    return DeviceFacts(
        device.name[:NAME_LENGTH],
        device.type.name.lower(),
        device.version[:NAME_LENGTH],
        device.feature_level,
    )
