"""The process that tries one device out, and what becomes of it.

It is the one of `loader_service.devices.self_test`, and may die of the device. What it says is
believed, as a zygote is: both run the operator's libraries, and no model.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import replace

from loader_service.devices.catalogue import Enabled
from loader_service.worker.fresh_python import bootstrap, command, environment
from model_loader_wire.causes import printable

PROGRAM = bootstrap("loader_service.devices.self_test")
TEST_SECONDS = 20
"""For each of the two tests of a device."""
PROCESS_SECONDS = 4 * TEST_SECONDS
"""For the whole process, with its start and its imports."""
STRUCTURES = "abi"
"""What the self-test calls the interpreter's structures, on which every device relies."""
REASON_LENGTH = 500


class SelfTest:
    """The self-test of one device, under way from the start."""

    def __init__(self, runtime: str, device: Enabled) -> None:
        """Start it, with the interpreter that workers would have.

        Where no process can be started, that is the outcome.
        """
        self._device = device
        self._refused = ""
        self._process: subprocess.Popen[bytes] | None = None
        fields = json.dumps([device.to_fields()])
        try:
            self._process = subprocess.Popen(
                command(PROGRAM, runtime, fields, str(TEST_SECONDS)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                # Ctrl-C at a terminal is the service's, and nothing that a device has done.
                process_group=0,
                cwd="/",
            )
        except OSError as error:
            self._refused = f"its self-test cannot be started: {error}"

    @property
    def started(self) -> bool:
        """Whether the host gave it a process."""
        return self._process is not None

    def outcome(self) -> Enabled:
        """Wait for its end; returns the device with what was found of it."""
        if self._process is None:
            return replace(self._device, disabled=self._refused)
        try:
            said, _ = self._process.communicate(timeout=PROCESS_SECONDS)
            found = json.loads(said)
        except subprocess.TimeoutExpired:
            return replace(self._device, disabled="its self-test does not end")
        except ValueError:
            return replace(self._device, disabled="its self-test ended without a word")
        finally:
            self.end()
        if reason := found[STRUCTURES]["disabled"]:
            reason = f"the runtime is not as devices need it: {reason}"
            return replace(self._device, disabled=printable(reason, REASON_LENGTH))
        own = found[self._device.name]
        return replace(
            self._device,
            disabled=printable(own["disabled"], REASON_LENGTH),
            threads=own["threads_run"],
            afresh=own["threads_loaded"] > 0,
        )

    def end(self) -> None:
        """End it, if it has not ended; the broker reaps every child that it does not know."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
