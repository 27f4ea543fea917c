"""Which devices models can be given on this host, and what each would be granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NAMES = ("reference", "xnnpack", "openvino")


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """One device: whether it is there, whether it must be enabled, and what it needs."""

    name: str
    available: bool
    always: bool
    """Whether models have it without an operator's word."""
    grants: Sequence[str]
    """What its workers have beyond the sandbox of every worker, in sentences."""
    detail: str
    """Why it is not there."""


def look_at_devices() -> list[KnownDevice]:
    """Look for the devices that have names of their own; none is imported, and none is asked."""
    try:
        from loader_service.devices.catalogue import ALWAYS, DeviceMissing, Enabled, grants_of
    except ImportError as error:
        return [KnownDevice(name, False, False, (), str(error)) for name in NAMES]
    found = []
    for name in NAMES:
        try:
            grants = grants_of(Enabled(name)).sentences()
        except DeviceMissing as error:
            found.append(KnownDevice(name, False, False, (), str(error)))
        else:
            found.append(KnownDevice(name, True, name in ALWAYS, grants, ""))
    return found
