"""Limits that several models share: of an origin, of a principal, and of the whole service.

Those of one model, and the oldest counts of origins and principals, are ``Limits``, which a caller
may lower for a context. Nobody can lower these for one model: they are the service's own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLimits:
    """Frozen limits; the unit is in each name. None limits nothing at that level."""

    origin_memory_bytes: int | None = None
    """Memory of all workers of an origin together. Needs a writable memory cgroup."""
    principal_memory_bytes: int | None = None
    """Memory of all workers of a principal together. Needs a writable memory cgroup, where by
    default each user who may attach has an equal share of the total."""
    total_memory_bytes: int | None = None
    """Memory of all workers together. Needs a writable memory cgroup, where by default it is three
    quarters of what the machine has, or the cgroup that the service is in."""
    origin_cpu_percent: int | None = None
    """CPU share of all workers of an origin together: 100 is one core. Needs a cpu cgroup."""
    principal_cpu_percent: int | None = None
    """CPU share of all workers of a principal together. Needs a writable cpu cgroup."""
    total_cpu_percent: int | None = None
    """CPU share of all workers together. Needs a writable cpu cgroup."""
    total_processes: int = 1024
    """Worker processes of all principals at a time."""
    principal_loads_per_minute: int = 12_000
    """Loads and inspections that one principal may begin within a minute."""
    total_loads_per_minute: int = 48_000
    """Loads and inspections that may begin within a minute."""
    origin_upload_bytes: int | None = None
    """Model bytes of all loads of one origin that are under way, announced or sent."""
    total_upload_bytes: int = 4 << 30
    """Model bytes of all loads that are under way, announced or sent."""
    origin_calls_in_flight: int | None = None
    """Calls of one origin that the service relays at a time, waiting ones included."""
    total_calls_in_flight: int = 1024
    """Calls that the service relays at a time, waiting ones included."""
    origin_bytes_in_flight: int | None = None
    """Inputs of one origin's relayed calls together."""
    total_bytes_in_flight: int = 2 << 30
    """Inputs of all relayed calls together; apart from them, replies that were not taken yet."""
    attach_connections: int = 256
    """Connections of one principal to the attach socket at a time; users who may not attach count
    as one principal."""
    total_attach_connections: int = 1024
    """Connections to the attach socket at a time."""
    grpc_connections: int = 512
    """Connections to one principal's gRPC socket at a time; one more is closed at once. At most
    a quarter of ``principal_descriptors``."""
    calls_at_a_time: int = 1024
    """gRPC calls of one principal at a time, open sessions included."""
    principal_descriptors: int | None = None
    """Descriptors that the service holds for one principal at a time, for connections, workers and
    models that are kept (at most an eighth). At most, and by default, an equal share of what there
    are in all for each user who may attach."""
    total_descriptors: int | None = None
    """Descriptors that the service has open, its own included; some are kept free. None: as many
    as RLIMIT_NOFILE lets it, which it raises to 65,536 where it may."""
    broker_memory_bytes: int | None = None
    """Memory of the broker itself while messages come in; above it, messages of the principal who
    sends most at a time are refused. None: half of the machine's memory, at most 4 GiB."""
    log_bytes_per_minute: int = 1 << 20
    """What the service writes to its log within a minute; it counts what it leaves out."""


SHARED_LIMITS = {field.name: field.default for field in fields(SharedLimits)}
"""Each limit's name and its default."""


def check(limits: SharedLimits) -> None:
    """Raise TypeError or ValueError naming a limit that cannot be."""
    for name, default in SHARED_LIMITS.items():
        value = getattr(limits, name)
        if value is None and default is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"limit {name} must be int, not {type(value).__name__}")
        if not 0 < value < 2**53:
            raise ValueError(f"limit {name} must be above zero and below 2**53, not {value}")
