"""Which devices models can be given on this host, and what each would be granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loader_service.devices.catalogue import Enabled

NAMES = ("reference", "xnnpack", "openvino")


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """One device: whether it is there, whether it must be enabled, and what it needs."""

    name: str
    available: bool
    always: bool
    """Whether models have it without an operator's word."""
    enabled: bool
    """Whether the configuration of a model-loaderd of this user enables it."""
    grants: Sequence[str]
    """What its workers have beyond the sandbox of every worker, in sentences."""
    detail: str
    """Why it is not there."""


def look_at_devices(enabled: Sequence[str] = (), runtime: str = "auto") -> list[KnownDevice]:
    """Look for the devices that have names of their own, and try out those that are `enabled`.

    These are written as in a configuration; each is tested as a service with that runtime does when
    it starts, in a process of its own.
    """
    try:
        from loader_service.devices.catalogue import ALWAYS, Enabled, enabled_from_text
    except ImportError as error:
        return [KnownDevice(name, False, False, False, (), str(error)) for name in NAMES]
    tested = [_tested(enabled_from_text(text), runtime) for text in enabled]
    there = {device.name for device in tested}
    plain = [_known(Enabled(name), False) for name in NAMES if name not in there]
    return [*plain, *(_known(device, device.name not in ALWAYS) for device in tested)]


def _tested(device: Enabled, runtime: str) -> Enabled:
    """Return a device with what its self-test finds."""
    from loader_service.broker.self_test_process import SelfTest
    from loader_service.devices.catalogue import ALWAYS

    return device if device.name in ALWAYS else SelfTest(runtime, device).outcome()


def _known(device: Enabled, enabled: bool) -> KnownDevice:
    from loader_service.devices.catalogue import ALWAYS, DeviceMissing, grants_of

    always = device.name in ALWAYS
    try:
        grants = grants_of(device).sentences()
    except DeviceMissing as error:
        return KnownDevice(device.name, False, always, enabled, (), str(error))
    return KnownDevice(device.name, True, always, enabled, grants, "")
