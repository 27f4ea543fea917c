"""The device ``reference``: the library's built-in kernels, always there."""

from __future__ import annotations

from collections.abc import Sequence

from loader_service.devices.catalogue import REFERENCE, Enabled
from loader_service.devices.cpu import CpuDevice
from loader_service.devices.device import Device
from loader_service.runtime.native import Library


def open_devices(enabled: Enabled, library: Library) -> Sequence[Device]:
    """Return the one device."""
    del enabled
    return [CpuDevice(REFERENCE, library)]
