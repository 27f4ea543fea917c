"""Limits: what one model, one origin and one principal may use.

A service fills every field (``DEFAULT_LIMITS`` unless configured); a caller may lower those of
one context. None means "not set here": in a caller's ``Limits`` the service's own value holds,
in a service's ``Limits`` the quantity is not limited (allowed only for the CPU fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Frozen limits; the unit is in each name.

    ``memory_bytes`` counts what the kernel charges to the worker: by cgroup where one is
    writable (resident pages), else its data segments (RLIMIT_DATA).
    """

    memory_bytes: int | None = None
    """Memory of one worker."""
    cpu_percent: int | None = None
    """CPU share of one worker: 100 is one core. Needs a writable cpu cgroup."""
    cpu_seconds: int | None = None
    """CPU time that one worker may use in its whole life (RLIMIT_CPU)."""
    threads: int | None = None
    """Threads of one worker, its own included; a larger ``num_threads`` is capped to it."""
    processes: int | None = None
    """Worker processes of one principal at a time."""
    model_bytes: int | None = None
    """Size of one model file."""
    tensor_bytes: int | None = None
    """All inputs of one call together."""
    output_bytes: int | None = None
    """All outputs of one call together."""
    models_per_origin: int | None = None
    """Models that one origin may hold at a time."""
    loads_per_minute: int | None = None
    """Loads and inspections that one origin may begin within a minute."""
    upload_bytes: int | None = None
    """Model bytes of all loads of one principal that are under way, announced or sent."""
    calls_in_flight: int | None = None
    """Calls of one principal that the service relays at a time, waiting ones included."""
    bytes_in_flight: int | None = None
    """Inputs of those calls together; apart from them, their replies that were not taken yet."""
    load_seconds: float | None = None
    """From the first byte of a model to its being ready."""
    compute_seconds: float | None = None
    """One computation."""

    def __post_init__(self) -> None:
        """Check types and signs; raises TypeError or ValueError naming the field."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            allowed = (int, float) if field.name in WITH_FRACTIONS else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed):
                kinds = " or ".join(kind.__name__ for kind in allowed)
                raise TypeError(f"limit {field.name} must be {kinds}, not {type(value).__name__}")
            if not value > 0:
                raise ValueError(f"limit {field.name} must be above zero, not {value}")
            if not value < 2**53:
                raise ValueError(f"limit {field.name} must be below 2**53, not {value}")

    def lowered_by(self, wish: Limits) -> Limits:
        """These limits with each value that `wish` sets; raises LimitRaised for a higher one."""
        values = asdict(self)
        for name, asked in asdict(wish).items():
            if asked is None:
                continue
            maximum = values[name]
            if maximum is not None and asked > maximum:
                raise LimitRaised(name, asked, maximum)
            values[name] = asked
        return Limits(**values)

    def set_values(self) -> dict[str, int | float]:
        """Return the fields that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Limits:
        """Build from names and numbers; raises ValueError for an unknown name."""
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                names = ", ".join(sorted(known))
                raise ValueError(f"no limit is called {name!r}; there are {names}")
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ checks each value


WITH_FRACTIONS = frozenset(field.name for field in fields(Limits) if "float" in str(field.type))
"""Limits that need not be whole numbers; of processor time the kernel counts whole seconds."""


class LimitRaised(ValueError):
    """A caller asked for more than the service allows."""

    def __init__(self, limit: str, value: int | float, maximum: int | float) -> None:
        super().__init__(f"limit {limit} can only be lowered: {value} is above {maximum}")
        self.limit, self.value, self.maximum = limit, value, maximum


DEFAULT_LIMITS = Limits(
    memory_bytes=1 << 30,
    threads=2,
    processes=128,
    model_bytes=512 << 20,
    tensor_bytes=256_000_000,
    output_bytes=256_000_000,
    models_per_origin=16,
    # More than a caller can begin one after the other.
    loads_per_minute=3000,
    upload_bytes=1 << 30,
    calls_in_flight=256,
    bytes_in_flight=1 << 30,
    load_seconds=30,
    compute_seconds=10,
)
