"""Which device runs which part of a model, and why the rest stayed on the CPU.

A worker reports it, the broker checks and caps it, the client shows it. Nobody but the worker knows
whether it is true; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from model_loader_wire.causes import printable

DEVICES = 64
PARTITIONS = 256
OPERATORS = 256
"""Names of operators in one partition."""
REASONS = 256
STEPS = 64
NAME_LENGTH = 80
TEXT_LENGTH = 300
TYPES = ("other", "cpu", "gpu", "accelerator")


class BadDelegation(ValueError):
    """A report that cannot be: the worker is broken or hostile."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device that was asked."""

    name: str
    type: str
    """One of ``TYPES``."""
    version: str
    feature_level: int


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """Operators that one device runs; those of the CPU's kernels are in one partition each."""

    device: str
    nodes: int
    operators: Mapping[str, int]
    """How many there are of each, by name; the most frequent first."""
    compile_seconds: float = 0
    cache: str = ""
    """``"hit"`` or ``"miss"``; empty where nothing is cached."""
    run_seconds: float | None = None
    """Mean of the runs so far by the worker's clock; None before the first, and for the CPU's."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why operators are not run by a device."""

    device: str
    operator: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """The report. ``coarse``: names and numbers were left out, only types of devices are told."""

    nodes: int
    """Operators of the primary subgraph."""
    partitions: tuple[PartitionFacts, ...]
    devices: tuple[DeviceFacts, ...] = ()
    reasons: tuple[Reason, ...] = ()
    steps: tuple[str, ...] = ()
    """What happened, in order: choices, failures, and what was done about them."""
    coarse: bool = False

    def share(self, partition: PartitionFacts) -> float:
        """Return which part of the operators a partition has, from 0 to 1."""
        return partition.nodes / self.nodes if self.nodes else 0.0

    def coarsened(self) -> Delegation:
        """Leave only the types of the devices in use: more would tell what hardware there is."""
        types = {device.name: device.type for device in self.devices}
        used = dict.fromkeys(types.get(item.device, "cpu") for item in self.partitions)
        partitions = tuple(PartitionFacts(name, 0, {}) for name in used)
        return Delegation(0, partitions, coarse=True)

    def to_values(self) -> dict[str, object]:
        """Return the report as JSON-able values."""
        return asdict(self)


def cut(text: str) -> str:
    """Bring a text to what a report takes."""
    return printable(" ".join(text.split()), TEXT_LENGTH)


def delegation_from_values(values: object) -> Delegation:
    """Read a worker's report; raises BadDelegation for what it may not say."""
    fields = _mapping(values)
    partitions = tuple(_partition(item) for item in _list(fields.get("partitions"), PARTITIONS))
    nodes = _count(fields.get("nodes"))
    if sum(partition.nodes for partition in partitions) > nodes:
        raise BadDelegation("the partitions have more operators than the model")
    return Delegation(
        nodes,
        partitions,
        tuple(_device(item) for item in _list(fields.get("devices"), DEVICES)),
        tuple(_reason(item) for item in _list(fields.get("reasons"), REASONS)),
        tuple(_text(item, TEXT_LENGTH) for item in _list(fields.get("steps"), STEPS)),
        fields.get("coarse") is True,
    )


def _partition(values: object) -> PartitionFacts:
    fields = _mapping(values)
    operators = _mapping(fields.get("operators"))
    if len(operators) > OPERATORS:
        raise BadDelegation(f"{len(operators)} kinds of operators are more than {OPERATORS}")
    cache = fields.get("cache")
    if cache not in ("", "hit", "miss"):
        raise BadDelegation("a cache is hit or missed")
    seconds = fields.get("run_seconds")
    counts = {_text(name, NAME_LENGTH): _count(count) for name, count in operators.items()}
    return PartitionFacts(
        _text(fields.get("device"), NAME_LENGTH),
        _count(fields.get("nodes")),
        dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        _seconds(fields.get("compile_seconds")),
        str(cache),
        None if seconds is None else _seconds(seconds),
    )


def _device(values: object) -> DeviceFacts:
    fields = _mapping(values)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise BadDelegation("there is no such type of device")
    return DeviceFacts(
        _text(fields.get("name"), NAME_LENGTH),
        kind,
        _text(fields.get("version"), NAME_LENGTH),
        _count(fields.get("feature_level")),
    )


def _reason(values: object) -> Reason:
    fields = _mapping(values)
    return Reason(
        _text(fields.get("device"), NAME_LENGTH),
        _text(fields.get("operator"), NAME_LENGTH),
        _count(fields.get("count")),
        _text(fields.get("reason"), TEXT_LENGTH),
    )


def _mapping(values: object) -> Mapping[str, object]:
    if not isinstance(values, Mapping):
        raise BadDelegation("an object was expected")
    return values


def _list(values: object, most: int) -> list[object]:
    if not isinstance(values, list | tuple):
        raise BadDelegation("a list was expected")
    if len(values) > most:
        raise BadDelegation(f"{len(values)} items are more than {most}")
    return list(values)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise BadDelegation("a count was expected")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31:
        raise BadDelegation("a number of seconds was expected")
    return float(value)


def _text(value: object, length: int) -> str:
    if not isinstance(value, str) or len(value) > length:
        raise BadDelegation(f"a text of at most {length} characters was expected")
    return printable(value, length)
