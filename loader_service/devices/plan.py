"""The plan for a model: which device gets which partition, and why the rest stays on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from loader_service.devices.capabilities import Performance
from loader_service.devices.catalogue import ALWAYS, REFERENCE, XNNPACK
from loader_service.devices.device import Device, DeviceError, DeviceType, Preference
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition, partition_of
from loader_service.devices.partitioner import (
    Candidate,
    Subset,
    best_devices,
    gain,
    independent_subsets,
    largest,
)
from loader_service.runtime.failures import UnsupportedModel
from loader_service.runtime.kernels import Kernels
from model_loader_wire.delegation import NAME_LENGTH, REASONS, STEPS, Reason, cut
from model_loader_wire.device_options import (
    MAX_NUMBER_DELEGATED_PARTITIONS,
    MIN_NODES_PER_PARTITION,
    DeviceOptions,
)

GPU = "gpu"
BUILTIN_FIGURES = Performance(1, 1)

_PREFERENCES = {
    None: Preference.UNDEFINED,
    "undefined": Preference.UNDEFINED,
    "low_power": Preference.LOW_POWER,
    "fast_single_answer": Preference.FAST_SINGLE_ANSWER,
    "sustained_speed": Preference.SUSTAINED_SPEED,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asked of devices."""

    options: DeviceOptions
    device_preference: str = "auto"
    """``"gpu"`` takes devices of that type only, beside the CPU; it never fails for want of one."""
    seconds: float | None = None
    """What is left for the load: the deadline for compiling."""
    coarse: bool = False
    """Whether the caller may learn nothing of the devices, from messages neither."""

    @property
    def preference(self) -> Preference:
        """The execution preference."""
        return _PREFERENCES[self.options.execution_preference]

    @property
    def allow_fp16(self) -> bool:
        """Whether float operators may be computed in reduced precision."""
        return bool(self.options.allow_fp16)

    @property
    def named(self) -> bool:
        """Whether one device was named: then the CPU does not stand in for it when it fails."""
        return self.options.accelerator_name is not None

    def to_fields(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "options": self.options.to_fields(),
            "device_preference": self.device_preference,
            "seconds": self.seconds,
            "coarse": self.coarse,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` wrote."""
        options = DeviceOptions.from_fields(fields["options"])
        return cls(options, fields["device_preference"], fields["seconds"], fields["coarse"])


@dataclass(frozen=True, slots=True)
class Planned:
    """A partition and the device that shall run it."""

    device: Device
    partition: Partition


@dataclass(slots=True)
class Plan:
    """What was decided."""

    kernels: Kernels = Kernels.DEFAULT
    planned: list[Planned] = field(default_factory=list)
    asked: list[Device] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def say(self, step: str) -> None:
        """Add a step to the report; of too many the first and the last ones are kept."""
        if len(self.steps) == STEPS:
            del self.steps[STEPS // 2]
        self.steps.append(cut(step))


def make_plan(model: ModelView, devices: Sequence[Device], wish: Wish) -> Plan:
    """Choose among `devices`, in the operator's order.

    Raises UnsupportedModel where a device was named that is not there, or gives no verdicts.
    """
    plan = Plan()
    name = wish.options.accelerator_name
    if name is not None:
        device = named_device(devices, name)
        if device.name in ALWAYS:
            plan.kernels = Kernels.BUILTIN if device.name == REFERENCE else Kernels.DEFAULT
            plan.asked.append(device)
            plan.say(f"{device.name} was named: its kernels run the model")
            return plan
        chosen = [device]
    else:
        chosen = [device for device in devices if _is_wanted(device, wish)]
    others = [device for device in chosen if device.name not in ALWAYS]
    compared = ALWAYS if wish.options.disallow_nnapi_cpu is False else (XNNPACK,)
    cpus = [device for device in devices if device.name in compared]
    if not others:
        plan.asked += cpus
        plan.say("no device but the CPU's kernels is at hand: they run the model")
        return plan
    candidates = _ask([*others, *cpus], model, wish, plan)
    _choose(model, {device.name: device for device in others}, candidates, wish, plan)
    return plan


def named_device(devices: Sequence[Device], name: str) -> Device:
    """Find a device by its name, or the first of a kind; raises UnsupportedModel."""
    for device in devices:
        if device.name == name:
            return device
    for device in devices:
        if device.name.partition(":")[0] == name:
            return device
    known = ", ".join(device.name for device in devices)
    raise UnsupportedModel(f"there is no device {name!r} here; there are {known}")


def _is_wanted(device: Device, wish: Wish) -> bool:
    if wish.device_preference == GPU:
        return device.type is DeviceType.GPU
    if wish.device_preference == "cpu":
        return device.type is DeviceType.CPU
    return True


def _ask(
    devices: Iterable[Device], model: ModelView, wish: Wish, plan: Plan
) -> dict[str, Candidate]:
    """Ask each device for its verdicts; one that fails to give them is left out.

    Raises UnsupportedModel if that is the one that was named.
    """
    found = {}
    for device in devices:
        plan.asked.append(device)
        try:
            verdicts = device.supported_operations(model)
            if len(verdicts) != len(model.nodes):
                raise DeviceError(f"{len(verdicts)} came for {len(model.nodes)} operators")
        except DeviceError as error:
            if wish.named and device.name not in ALWAYS:
                raise UnsupportedModel(f"{device.name} gave no verdicts: {error}") from None
            plan.say(f"{device.name} was left out, it gave no verdicts: {error}")
            continue
        found[device.name] = Candidate(device.name, device.type, device.capabilities, verdicts)
    return found


def _choose(
    model: ModelView,
    others: dict[str, Device],
    candidates: dict[str, Candidate],
    wish: Wish,
    plan: Plan,
) -> None:
    """Partition the model between the devices that answered."""
    options = wish.options
    compared = [
        candidate for name, candidate in candidates.items() if not wish.named or name in others
    ]
    best = best_devices(model, compared, wish.preference, allow_fp16=wish.allow_fp16)
    labels = [item.name if item is not None and item.name in others else None for item in best]
    stayed: dict[int, tuple[str, str]] = {}
    asked = [candidate for name, candidate in candidates.items() if name in others]
    for node in model.nodes:
        if labels[node.index] is None:
            for candidate in asked:
                verdict = candidate.verdicts[node.index]
                reason = "the CPU's kernels are preferred" if verdict.supported else verdict.reason
                stayed.setdefault(node.index, (candidate.name, reason))
    subsets = [subset for subset in independent_subsets(model, labels) if subset.label is not None]
    figures = _cpu_figures(model, candidates.get(XNNPACK))

    def left(subset: Subset, reason: str) -> None:
        for index in subset.nodes:
            stayed[index] = (str(subset.label), reason)

    worth = []
    for subset in subsets:
        capabilities = candidates[str(subset.label)].capabilities
        saved = gain(model, subset.nodes, capabilities, figures, allow_fp16=wish.allow_fp16)
        if not wish.named and wish.preference is not Preference.LOW_POWER and saved <= 0:
            left(subset, "its hand-overs would cost more than it gains")
        else:
            worth.append(subset)
    for name, device in others.items():
        bound = device.capabilities.most_partitions
        own = [subset for subset in worth if subset.label == name]
        if bound is not None and len(own) > bound:
            for subset in set(own).difference(largest(own, bound, 0)):
                worth.remove(subset)
                left(subset, f"not among the {bound} largest partitions, and it takes no more")
    most = _or(options.max_number_delegated_partitions, MAX_NUMBER_DELEGATED_PARTITIONS)
    least = _or(options.min_nodes_per_partition, MIN_NODES_PER_PARTITION)
    kept = largest(worth, most, least)
    for subset in worth:
        if len(subset.nodes) < least:
            left(subset, f"a partition of fewer operators than min_nodes_per_partition = {least}")
        elif subset not in kept:
            left(subset, f"not among the max_number_delegated_partitions = {most} largest")
    for subset in kept:
        partition = partition_of(model, subset.nodes)
        plan.planned.append(Planned(others[str(subset.label)], partition))
    if not any(labels):
        plan.say("no operator goes to a device: the CPU's kernels run the model")
    plan.reasons = _counted(model, stayed)


def _cpu_figures(model: ModelView, xnnpack: Candidate | None) -> Callable[[int], Performance]:
    """Say for each node what the CPU's kernels would take that would run it instead."""

    def figures(index: int) -> Performance:
        if xnnpack is None or not xnnpack.verdicts[index].supported:
            return BUILTIN_FIGURES
        kind = model.kind(model.nodes[index])
        return xnnpack.capabilities.performance(kind, allow_fp16=False)

    return figures


def _counted(model: ModelView, stayed: dict[int, tuple[str, str]]) -> list[Reason]:
    """Count the reasons, the most frequent first."""
    counts = Counter(
        (device, model.nodes[index].operator[:NAME_LENGTH], cut(reason))
        for index, (device, reason) in stayed.items()
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        Reason(device, operator, count, reason)
        for (device, operator, reason), count in ordered[:REASONS]
    ]


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
