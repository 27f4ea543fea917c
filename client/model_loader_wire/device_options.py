"""Options for devices, with NNAPI's names and defaults: client, broker and worker share them.

None stands for "not given": a load that gives none of them is not offered to any device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

EXECUTION_PREFERENCES = ("undefined", "low_power", "fast_single_answer", "sustained_speed")
"""``ANEURALNETWORKS_PREFER_…``, and NNAPI's word for none of them."""
TOKEN_BYTES = 32
"""``ANEURALNETWORKS_BYTE_SIZE_OF_CACHE_TOKEN``."""
NAME_LENGTH = 80
MOST_PARTITIONS = 2**31 - 1
MAX_NUMBER_DELEGATED_PARTITIONS = 3
"""NNAPI's default. Zero and below: no limit."""
MIN_NODES_PER_PARTITION = 0
"""No limit, as in the delegates' partition helper."""

_TYPES: Mapping[str, tuple[type, str]] = {
    "accelerator_name": (str, "the name of a device"),
    "execution_preference": (str, "one of " + ", ".join(map(repr, EXECUTION_PREFERENCES))),
    "allow_fp16": (bool, "True or False"),
    "max_number_delegated_partitions": (int, "a whole number"),
    "min_nodes_per_partition": (int, "a whole number"),
    "disallow_nnapi_cpu": (bool, "True or False"),
    "cache_token": (bytes, f"{TOKEN_BYTES} bytes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """What a caller asks of devices for the models of a context."""

    accelerator_name: str | None = None
    """Use this device, and no CPU instead if it fails."""
    execution_preference: str | None = None
    """What devices are chosen and compiled for; ``power_preference`` says it when this is unset."""
    allow_fp16: bool | None = None
    """Let a device compute float32 operators in reduced precision. Default: False."""
    max_number_delegated_partitions: int | None = None
    """The largest so many partitions go to devices; zero or below: all. Default: 3."""
    min_nodes_per_partition: int | None = None
    """A smaller partition stays on the CPU. Default: 0."""
    disallow_nnapi_cpu: bool | None = None
    """Leave ``reference``, the built-in kernels as a device, out of the choice. Default: True."""
    cache_token: bytes | None = None
    """32 bytes that stand for the model: compiled partitions are kept for its next load."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises ValueError naming the option."""
        for name, value in self.given().items():
            kind, wanted = _TYPES[name]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ValueError(f"{name} must be {wanted}, not {value!r:.100}")
            if isinstance(value, int) and abs(value) > MOST_PARTITIONS:
                raise ValueError(f"{name} must be between ±{MOST_PARTITIONS}, not {value}")
        accelerator = self.accelerator_name
        if accelerator is not None and not (
            0 < len(accelerator) <= NAME_LENGTH and accelerator.isprintable()
        ):
            raise ValueError(
                f"accelerator_name must be the name of a device, not {accelerator!r:.100}"
            )
        preference = self.execution_preference
        if preference is not None and preference not in EXECUTION_PREFERENCES:
            wanted = _TYPES["execution_preference"][1]
            raise ValueError(f"execution_preference must be {wanted}, not {preference!r:.100}")
        if self.cache_token is not None and len(self.cache_token) != TOKEN_BYTES:
            raise ValueError(
                f"cache_token must be {TOKEN_BYTES} bytes, not {len(self.cache_token)}"
            )

    def given(self) -> dict[str, object]:
        """Return the options that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def to_fields(self) -> dict[str, object]:
        """Return what was given as a JSON object."""
        values = self.given()
        if self.cache_token is not None:
            values["cache_token"] = self.cache_token.hex()
        return values

    @classmethod
    def from_fields(cls, values: Mapping[str, object]) -> DeviceOptions:
        """Read what `to_fields` wrote; raises ValueError or TypeError."""
        token = values.get("cache_token")
        known = dict(values)
        if isinstance(token, str):
            known["cache_token"] = bytes.fromhex(token)
        return cls(**known)  # type: ignore[arg-type]  # __post_init__ checks each value
