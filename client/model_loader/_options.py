"""The options of a context, checked as WebIDL checks its dictionaries and enumerations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from model_loader_wire.device_options import DeviceOptions
from model_loader_wire.limits import LimitRaised, Limits

from .errors import ConstraintError, QuotaExceededError

DEVICE_PREFERENCES = ("auto", "gpu", "cpu")
"""``MLDevicePreference``; "gpu" falls back to the CPU silently, so that it tells nobody what
hardware there is."""
POWER_PREFERENCES = ("auto", "high-performance", "low-power")
"""``MLPowerPreference``."""
MODEL_FORMATS = ("tflite",)
"""``MLModelFormat``."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """``MLContextOptions``, and this project's limits, layers and options for devices."""

    device_preference: str = "auto"
    power_preference: str = "auto"
    model_format: str = "tflite"
    num_threads: int = 0
    limits: Limits | None = None
    required_layers: tuple[str, ...] = ()
    devices: DeviceOptions = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        """Raise ConstraintError for a value that the specification's lists do not have."""
        _one_of("device_preference", self.device_preference, DEVICE_PREFERENCES)
        _one_of("power_preference", self.power_preference, POWER_PREFERENCES)
        _one_of("model_format", self.model_format, MODEL_FORMATS)
        threads = self.num_threads
        if not isinstance(threads, int) or isinstance(threads, bool) or not 0 <= threads < 2**32:
            raise ConstraintError(
                "num_threads must be a whole number from 0 (the service decides) on, not "
                f"{threads!r}"
            )
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise ConstraintError(
                f"limits must be a model_loader.Limits, not {type(self.limits).__name__}"
            )


def device_options(**options: Any) -> DeviceOptions:
    """Check the options for devices; raises ConstraintError naming the one that cannot be."""
    token = options.get("cache_token")
    if isinstance(token, bytearray | memoryview):
        options["cache_token"] = bytes(token)
    try:
        return DeviceOptions(**options)
    except ValueError as error:
        raise ConstraintError(str(error)) from None


def layers_tuple(layers: object) -> tuple[str, ...]:
    """Check ``required_layers``: strings, and not one string."""
    if isinstance(layers, str | bytes) or not isinstance(layers, Iterable):
        raise ConstraintError("required_layers must be a sequence of names of layers")
    names = tuple(layers)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConstraintError(f"required_layers must hold names of layers, not {name!r}")
    return names


def lower(limits: Limits, wish: Limits | None) -> Limits:
    """Return the limits that will hold; raises QuotaExceededError for one that is raised."""
    if wish is None:
        return limits
    try:
        return limits.lowered_by(wish)
    except LimitRaised as error:
        raise QuotaExceededError(
            str(error), limit=error.limit, value=error.value, maximum=error.maximum
        ) from None


def seconds(timeout: object, usual: float | None) -> float | None:
    """Check a timeout; None stands for the usual one, infinity for no timeout at all."""
    if timeout is None:
        return usual
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout):
        raise ConstraintError(f"timeout must be a number of seconds, not {timeout!r}")
    if timeout <= 0:
        raise ConstraintError(f"timeout must be above zero seconds, not {timeout!r}")
    return None if math.isinf(timeout) else float(timeout)


def _one_of(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ConstraintError(f"{option} must be one of {choices}, not {value!r}")
