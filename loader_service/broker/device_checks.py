"""Which devices fail their self-test: tried in a process that may die, before any worker has them.

The process is the one of `loader_service.devices.self_test`. The broker believes what it says, as
it believes a zygote: both run the operator's libraries, and no model. A device that was seen to
start threads when it is loaded needs workers that are executed afresh: whether this host lets one
be made is tried, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.devices.catalogue import ALWAYS, Enabled, enabled_devices
from loader_service.worker.fresh_python import bootstrap, command, environment
from model_loader_wire.causes import Cause, printable

log = logging.getLogger("model_loader.devices")

SELF_TEST = bootstrap("loader_service.devices.self_test")
TEST_SECONDS = 20
"""For each of the two tests of a device."""
STRUCTURES = "abi"
"""What the self-test calls the interpreter's structures, on which every device relies."""
REASON_LENGTH = 500


class DeviceChecks:
    """The self-tests of a service's devices: each device's is run once, and its outcome kept."""

    def __init__(self, settings: Settings, rehearse: Callable[[Enabled], Awaitable[None]]) -> None:
        """Nothing is run before `begin` or `checked`.

        `rehearse` makes a worker with a device, and raises Refusal if that cannot be done.
        """
        self._settings = settings
        self._rehearse = rehearse
        self._running: subprocess.Popen[bytes] | None = None
        self._tests: dict[Enabled, asyncio.Task[Enabled]] = {}
        self._turn = asyncio.Lock()

    def begin(self) -> None:
        """Begin to test what is enabled for anybody."""
        own = self._settings
        for devices in (own.devices, *(policy.devices for policy in own.policies)):
            for device in enabled_devices(devices):
                self._test_of(device)

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
            kill(self._running)
        await asyncio.gather(*self._tests.values(), return_exceptions=True)

    def _test_of(self, device: Enabled) -> asyncio.Task[Enabled]:
        if device not in self._tests:
            self._tests[device] = asyncio.create_task(self._test(device))
        return self._tests[device]

    async def _test(self, device: Enabled) -> Enabled:
        """Test one device; returns it with what was found."""
        async with self._turn:
            # Started here, and not in the thread that waits: the process ends with its starter.
            try:
                self._running = start_self_test(self._settings.runtime, device, TEST_SECONDS)
            except OSError as error:
                found = replace(device, disabled=f"its self-test cannot be started: {error}")
            else:
                found = await asyncio.to_thread(outcome, self._running, device, 4 * TEST_SECONDS)
                self._running = None
        if found.afresh and not found.disabled:
            try:
                await self._rehearse(found)
            except (Refusal, OSError, RuntimeError) as error:
                message = printable(str(error), REASON_LENGTH)
                found = replace(found, disabled=f"no worker can be made for it: {message}")
                if not isinstance(error, Refusal) or error.failure.limit is not None:
                    # That may pass: the next load tries it again.
                    del self._tests[device]
        if found.disabled:
            log.warning("the device %s is disabled: %s", device.name, found.disabled)
        return found


def start_self_test(runtime: str, device: Enabled, seconds: float) -> subprocess.Popen[bytes]:
    """Start the self-test of a device, each part of which may take so many seconds."""
    fields = json.dumps([device.to_fields()])
    return subprocess.Popen(
        command(SELF_TEST, runtime, fields, str(seconds)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        # Ctrl-C at a terminal is the service's, and nothing that a device has done.
        process_group=0,
        cwd="/",
    )


def outcome(process: subprocess.Popen[bytes], device: Enabled, seconds: float) -> Enabled:
    """Wait for a self-test; returns the device with what was found of it."""
    try:
        said, _ = process.communicate(timeout=seconds)
        tests = json.loads(said)
    except subprocess.TimeoutExpired:
        return replace(device, disabled="its self-test does not end")
    except ValueError:
        return replace(device, disabled="its self-test ended without a word")
    finally:
        kill(process)
    if reason := tests[STRUCTURES]["disabled"]:
        reason = f"the runtime is not as devices need it: {reason}"
        return replace(device, disabled=printable(reason, REASON_LENGTH))
    found = tests[device.name]
    return replace(
        device,
        disabled=printable(found["disabled"], REASON_LENGTH),
        threads=found["threads_run"],
        afresh=found["threads_loaded"] > 0,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a self-test that may have ended; the broker reaps every child that it does not know."""
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
