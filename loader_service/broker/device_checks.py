"""Which devices fail their self-test: tried in a process that may die, before any worker has them.

The process is the one of `loader_service.devices.self_test`. The broker believes what it says, as
it believes a zygote: both run the operator's libraries, and no model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.refusal import refuse
from loader_service.broker.settings import Settings
from loader_service.broker.zygote_process import ENVIRONMENT
from loader_service.devices.catalogue import ALWAYS, Enabled, enabled_devices
from model_loader_wire.causes import Cause, printable

log = logging.getLogger("model_loader.devices")

SELF_TEST = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from loader_service.devices.self_test import main
sys.exit(main(sys.argv[2:]))
"""
TEST_SECONDS = 10
"""For each of the two tests of a device."""
STRUCTURES = "abi"
"""What the self-test calls the interpreter's structures, on which every device relies."""
REASON_LENGTH = 500


class DeviceChecks:
    """The self-tests of a service's devices: each device's is run once, and its outcome kept."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is run before `begin` or `checked`."""
        self._settings = settings
        self._running: subprocess.Popen[bytes] | None = None
        self._tests: dict[Enabled, asyncio.Task[str]] = {}
        self._turn = asyncio.Lock()

    def begin(self) -> None:
        """Begin to test what is enabled for anybody."""
        own = self._settings
        for devices in (own.devices, *(policy.devices for policy in own.policies)):
            for device in enabled_devices(devices):
                self._test_of(device)

    async def checked(self, order: DeviceOrder | None) -> DeviceOrder | None:
        """Return an order in which the devices that failed are marked as disabled.

        Raises Refusal if the caller has named one of those.
        """
        if order is None:
            return None
        devices = []
        for device in order.enabled:
            reason = ""
            if device.name not in ALWAYS:
                reason = await asyncio.shield(self._test_of(device))
            devices.append(replace(device, disabled=reason) if reason else device)
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

    def _test_of(self, device: Enabled) -> asyncio.Task[str]:
        if device not in self._tests:
            self._tests[device] = asyncio.create_task(self._test(device))
        return self._tests[device]

    async def _test(self, device: Enabled) -> str:
        """Test one device; returns why it is disabled, or ``""``."""
        async with self._turn:
            # Started here, and not in the thread that waits: the process ends with its starter.
            try:
                self._running = start_self_test(self._settings.runtime, device, TEST_SECONDS)
            except OSError as error:
                reason = f"its self-test cannot be started: {error}"
            else:
                reason = await asyncio.to_thread(outcome, self._running, device, 4 * TEST_SECONDS)
                self._running = None
        if reason:
            log.warning("the device %s is disabled: %s", device.name, reason)
        return reason


def start_self_test(runtime: str, device: Enabled, seconds: float) -> subprocess.Popen[bytes]:
    """Start the self-test of a device, each part of which may take so many seconds."""
    path = json.dumps([entry for entry in sys.path if entry])
    fields = json.dumps([device.to_fields()])
    library_path = os.environ.get("LD_LIBRARY_PATH")
    return subprocess.Popen(
        [sys.executable, "-I", "-c", SELF_TEST, path, runtime, fields, str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT | ({"LD_LIBRARY_PATH": library_path} if library_path else {}),
        cwd="/",
    )


def outcome(process: subprocess.Popen[bytes], device: Enabled, seconds: float) -> str:
    """Wait for a self-test; returns why the device failed it, or ``""``."""
    try:
        said, _ = process.communicate(timeout=seconds)
        reasons = json.loads(said)
    except subprocess.TimeoutExpired:
        return "its self-test does not end"
    except ValueError:
        return "its self-test ended without a word"
    finally:
        kill(process)
    if reason := reasons.get(STRUCTURES):
        return printable(f"the runtime is not as devices need it: {reason}", REASON_LENGTH)
    return printable(reasons.get(device.name, ""), REASON_LENGTH)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a self-test that may have ended; the broker reaps every child that it does not know."""
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
