"""What a service does about self-tests of devices that could not be made."""

from __future__ import annotations

import asyncio

import pytest

from loader_service.broker import self_test_process
from loader_service.broker.device_checks import DeviceChecks
from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.principals import Principals
from loader_service.broker.settings import Settings
from loader_service.devices.catalogue import Enabled
from model_loader_wire.device_options import DeviceOptions

HANG_SECONDS = 60
MISSING = Enabled("external:missing", "/nowhere/lib.so")
ORDER = DeviceOrder((MISSING,), DeviceOptions(), "auto", coarse=False)


def test_a_self_test_that_the_host_refuses_is_tried_again_by_the_next_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rehearse(device: Enabled) -> None:
        raise AssertionError(device)

    async def reasons() -> list[str]:
        checks = DeviceChecks(Principals(Settings(directory="/nowhere")), rehearse)
        found = []
        with monkeypatch.context() as host:
            host.setattr(self_test_process, "command", lambda *_: ["/nowhere/python"])
            found.append(await checks.checked(ORDER))
        found.append(await checks.checked(ORDER))
        # What the device itself is at fault for is known from here on.
        with monkeypatch.context() as host:
            host.setattr(self_test_process, "command", lambda *_: ["/nowhere/python"])
            found.append(await checks.checked(ORDER))
        await checks.stop()
        return [order.enabled[0].disabled for order in found if order]

    refused, first, second = asyncio.run(asyncio.wait_for(reasons(), HANG_SECONDS))
    assert refused.startswith("its self-test cannot be started: [Errno 2]")
    assert "is of no use" in first
    assert second == first
