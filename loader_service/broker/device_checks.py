"""Which devices fail their self-test: tried in a process that may die, before any worker has them.

A device that was seen to start threads when it is loaded needs workers that are executed afresh:
whether this host lets one be made is tried, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.self_test_process import REASON_LENGTH, SelfTest
from loader_service.devices.catalogue import ALWAYS, Enabled, enabled_devices
from model_loader_wire.causes import Cause, printable

log = logging.getLogger("model_loader.devices")


class DeviceChecks:
    """The self-tests of a service's devices: each device's is run once, and its outcome kept."""

    def __init__(
        self, principals: Principals, rehearse: Callable[[Enabled], Awaitable[None]]
    ) -> None:
        """Nothing is run before `begin` or `checked`.

        `rehearse` makes a worker with a device, and raises Refusal if that cannot be done.
        """
        self._principals = principals
        self._rehearse = rehearse
        self._running: SelfTest | None = None
        self._tests: dict[Enabled, asyncio.Task[Enabled]] = {}
        self._found: dict[Enabled, Enabled] = {}
        self._turn = asyncio.Lock()

    def begin(self) -> None:
        """Begin to test what is enabled for anybody."""
        for device in self._enabled():
            self._test_of(device)

    def found(self) -> list[tuple[Enabled, Enabled | None]]:
        """List what is enabled for anybody now, each with what its last test has found."""
        return [(device, self._found.get(device)) for device in self._enabled()]

    async def checked(self, order: DeviceOrder | None) -> DeviceOrder | None:
        """Return an order with what was found of its devices; those that failed are disabled in it.

        Raises Refusal if the caller has named one of those.
        """
        if order is None:
            return None
        devices = []
        for device in order.enabled:
            tested = device
            if device.name not in ALWAYS:
                tested = await asyncio.shield(self._test_of(device))
            devices.append(tested)
        if order.options.accelerator_name is not None and devices[0].disabled:
            raise refuse(
                Cause.UNSUPPORTED,
                f"the device {devices[0].name!r} is disabled: {devices[0].disabled}",
            )
        return replace(order, enabled=tuple(devices))

    async def stop(self) -> None:
        """End the tests that run."""
        for test in self._tests.values():
            test.cancel()
        if self._running is not None:
            self._running.end()
        await asyncio.gather(*self._tests.values(), return_exceptions=True)

    def _enabled(self) -> list[Enabled]:
        """List each device that is enabled for anybody once, in the operator's order."""
        settings = self._principals.settings
        for_each = (settings.devices, *(policy.devices for policy in settings.policies))
        return list(
            dict.fromkeys(device for texts in for_each for device in enabled_devices(texts))
        )

    def _test_of(self, device: Enabled) -> asyncio.Task[Enabled]:
        if device not in self._tests:
            self._tests[device] = asyncio.create_task(self._test(device))
        return self._tests[device]

    async def _test(self, device: Enabled) -> Enabled:
        """Test one device; returns it with what was found."""
        async with self._turn:
            # Started here, and not in the thread that waits: the process ends with its starter.
            test = self._running = SelfTest(self._principals.settings.runtime, device)
            found = await asyncio.to_thread(test.outcome)
            self._running = None
        may_pass = not test.started
        if found.afresh and not found.disabled:
            try:
                await self._rehearse(found)
            except (Refusal, OSError, RuntimeError) as error:
                message = printable(str(error), REASON_LENGTH)
                found = replace(found, disabled=f"no worker can be made for it: {message}")
                may_pass = not isinstance(error, Refusal) or error.failure.limit is not None
        self._found[device] = found
        if may_pass:
            # The next load tries it again.
            del self._tests[device]
        if found.disabled:
            log.warning("the device %s is disabled: %s", device.name, found.disabled)
        return found
