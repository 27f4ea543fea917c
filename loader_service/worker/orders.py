"""What the broker orders: the values of a spawn and of a worker's start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

MOST_CHANNELS = 240
"""Channels of one worker: with its other descriptors they fit one message (SCM_MAX_FD, 253)."""


class Task(StrEnum):
    """What a worker is for."""

    LOAD = "load"
    HOST = "host"
    """Hold several models of one origin; the orders for each come after the lock-down."""
    INSPECT = "inspect"
    REHEARSE = "rehearse"
    """Lock down, report the layers, end: shows at the service's start what this host allows."""


@dataclass(frozen=True, slots=True)
class _Order:
    def to_fields(self) -> dict[str, object]:
        """Return the order as a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read an order that the broker wrote."""
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Spawn(_Order):
    """Asks the zygote for a worker; stderr, control socket and channels come with it."""

    uid: int | None
    """The worker's own uid, where the zygote may change it."""
    channels: int = 1
    """How many channels: one for each model that the worker will ever hold."""
    devices: Sequence[Mapping[str, Any]] | None = None
    """Devices that the worker opens before it locks itself down: ``Enabled``, as JSON objects.
    None for a plain worker."""
    grants: Mapping[str, Any] | None = None
    """What these devices are granted, together: ``Grants``, as a JSON object; None for nothing."""
    file_bytes: int = 0
    """How long the file may become that they may be granted."""
    load_seconds: float = 0
    """How long it may take until they are loaded, in a worker that is executed afresh."""


@dataclass(frozen=True, slots=True)
class Go(_Order):
    """Tells a worker to lock itself down and begin; sent when it is inside its cgroup."""

    task: str
    threads: int
    """Threads of the interpreter."""
    data_bytes: int | None
    """RLIMIT_DATA: set where no cgroup holds the memory."""
    memory_bytes: int
    cpu_seconds: int | None
    tensor_bytes: int
    output_bytes: int
    model_size: int
    """Bytes of model to come; 0 if not known beforehand."""
    operators: str = "standard"
    """The profile of operators that the verifier allows."""
    models: int = 1
    """How many models the worker may hold at a time. The limits above are one model's; the broker
    raises those of the kernel with each model, up to so many times."""
    wish: Mapping[str, Any] | None = None
    """What the caller asks of devices: ``Wish``, as a JSON object; None in a plain worker."""
    cache_entry_bytes: int = 0
    """The largest compiled partition that the broker keeps for the next load; 0: it keeps none."""
