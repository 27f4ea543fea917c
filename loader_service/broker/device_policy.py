"""Which devices a load may use: the operator's policy, and what the caller asks of it.

The broker imports no device. What it refuses, it refuses by what `devices.catalogue` says of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from loader_service.broker.groups import Owner
from loader_service.broker.principals import is_own
from loader_service.broker.refusal import refuse
from loader_service.broker.settings import Policy
from loader_service.devices.catalogue import (
    ALWAYS,
    KINDS,
    PREFERENCES,
    DeviceMissing,
    Enabled,
    enabled_devices,
    grants_of,
)
from model_loader_wire.causes import Cause
from model_loader_wire.device_options import DeviceOptions
from model_loader_wire.v1 import model_loader_pb2 as pb

FOR_THE_WEB = frozenset({"execution_preference"})
"""Options that origins of the web may give: the answer to any other would tell what hardware there
is, or let one origin find out what another has loaded."""
GPU = "gpu"
_BY_POWER = {"low-power": "low_power", "high-performance": "fast_single_answer"}


@dataclass(frozen=True, slots=True)
class DeviceOrder:
    """What one load gets of devices."""

    enabled: tuple[Enabled, ...]
    """In the operator's order; the CPU's come last."""
    options: DeviceOptions
    device_preference: str
    coarse: bool
    """Whether the caller is told types of devices only."""
    cache_entry_bytes: int = 0
    """The largest compiled partition that is kept for the next load; 0: none is."""

    def wish(self, seconds: float | None) -> dict[str, object]:
        """Write the worker's orders; see ``devices.plan.Wish``."""
        return {
            "options": self.options.to_fields(),
            "device_preference": self.device_preference,
            "seconds": seconds,
            "coarse": self.coarse,
        }


def device_order(policy: Policy, owner: Owner, header: pb.LoadHeader) -> DeviceOrder | None:
    """Decide on a load's devices; None for one that has nothing to do with them.

    Raises Refusal for options that cannot be, that may not be given, or that nobody honours.
    """
    enabled = enabled_devices(policy.devices)
    options = _options(header)
    web = is_web(policy, owner)
    # Whether a device is enabled tells the web what there is, too.
    wants_gpu = header.device_preference == GPU and (bool(enabled) or web)
    if not options.given() and not wants_gpu:
        return None
    if web and (told := sorted(options.given().keys() - FOR_THE_WEB)):
        raise refuse(
            Cause.UNSUPPORTED, f"origins of the web may not give the options {', '.join(told)}"
        )
    chosen = (*enabled, *(Enabled(name) for name in ALWAYS))
    if options.accelerator_name is not None:
        chosen = _named(chosen, options.accelerator_name)
    require_honoured(options, chosen)
    if options.execution_preference is None and header.power_preference in _BY_POWER:
        preference = _BY_POWER[header.power_preference]
        options = replace(options, execution_preference=preference)
    return DeviceOrder(chosen, options, header.device_preference or "auto", web)


def without_missing(order: DeviceOrder) -> DeviceOrder:
    """Disable what is missing just now, as a device node may be: no worker shall open it."""
    return replace(order, enabled=tuple(map(_disabled_if_missing, order.enabled)))


def as_of_now(order: DeviceOrder, policy: Policy) -> DeviceOrder:
    """Disable in the order of a model that comes back what the policy does not enable any more."""
    enabled = enabled_devices(policy.devices)
    return replace(order, enabled=tuple(_disabled_unless(enabled, each) for each in order.enabled))


def is_web(policy: Policy, owner: Owner) -> bool:
    """Whether an origin is one that an embedder speaks for."""
    return policy.embedder and not is_own(owner.origin)


def shown(enabled: Iterable[Enabled]) -> dict[str, tuple[str, ...]]:
    """Say what each device of a worker is granted, in sentences."""
    said = {}
    for device in enabled:
        try:
            said[device.name] = grants_of(device).sentences()
        except DeviceMissing as error:
            said[device.name] = (f"cannot be used: {error}",)
    return said


def _options(header: pb.LoadHeader) -> DeviceOptions:
    message = header.device_options
    try:
        return DeviceOptions(**{field.name: value for field, value in message.ListFields()})
    except ValueError as error:
        raise refuse(Cause.INVALID_INPUT, str(error)) from None


def _named(enabled: tuple[Enabled, ...], name: str) -> tuple[Enabled, ...]:
    """Return the device of that name, which may be one of several of its kind, and the CPU's."""
    chosen = [
        device
        for device in enabled
        if name in (device.name, device.kind) or device.name == name.partition(":")[0]
    ]
    if not chosen:
        known = ", ".join(device.name for device in enabled)
        raise refuse(
            Cause.UNSUPPORTED,
            f"there is no device {name!r} here; there are {known}: others must be enabled where "
            "the service is started (devices, --device)",
        )
    try:
        grants_of(chosen[0])
    except DeviceMissing as error:
        raise refuse(Cause.UNSUPPORTED, f"the device {name!r} cannot be used: {error}") from None
    cpus = [device for device in enabled if device.name in ALWAYS and device not in chosen]
    return (chosen[0], *cpus)


def require_honoured(options: DeviceOptions, enabled: Iterable[Enabled]) -> None:
    """Refuse options that mean nothing to any device at hand; raises Refusal naming them.

    What is missing, or was disabled by its self-test, is not at hand.
    """
    asked = [device for device in enabled if not _disabled_if_missing(device).disabled]
    if options.accelerator_name is not None:
        asked = asked[:1]
    honoured = PREFERENCES.union(*(KINDS[device.kind].honours for device in asked))
    if ignored := sorted(options.given().keys() - honoured):
        names = ", ".join(device.name for device in asked)
        raise refuse(
            Cause.UNSUPPORTED,
            f"no device at hand honours {', '.join(ignored)}; there are {names}",
        )


def _disabled_unless(enabled: Iterable[Enabled], device: Enabled) -> Enabled:
    as_enabled = replace(device, disabled="", threads=0, afresh=False)
    if device.name in ALWAYS or as_enabled in enabled:
        return device
    return replace(device, disabled="it is not enabled any more")


def _disabled_if_missing(device: Enabled) -> Enabled:
    if device.disabled:
        return device
    try:
        grants_of(device)
    except DeviceMissing as error:
        return replace(device, disabled=str(error))
    return device
