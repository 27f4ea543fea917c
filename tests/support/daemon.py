"""``model-loaderd`` as a test's own process."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS, Service


class Daemon(Service):
    """A daemon with the flags that a test gives; other users may enter its folder."""

    def __init__(self, **flags: Any) -> None:
        """Start it and wait until it listens. A flag is named as its setting; True is no value.

        No flag is `before`: the words of a command that becomes the daemon, as ``nsenter`` does.
        """
        before: Sequence[str] = flags.pop("before", ())
        self._folder = tempfile.TemporaryDirectory(prefix="mlt-", dir="/tmp")
        Path(self._folder.name).chmod(0o755)
        self.directory = Path(self._folder.name) / "s"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the daemon
        # A process in waiting would be one more than a test has loaded models.
        flags.setdefault("spare_seconds", 0)
        words = [
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
            for name, value in flags.items()
        ]
        self._process = subprocess.Popen(
            [
                *(*before, sys.executable, "-m", "loader_service.broker.daemon"),
                *(f"--directory={self.directory}", *words),
            ],
            stderr=self._log,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + HANG_SECONDS
        while "ready in" not in self.log():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def close(self) -> int:
        """End it as its operator does; returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(HANG_SECONDS)
        self._folder.cleanup()
        return status

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Bytes of its own resident memory."""
        fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        return (int(fields[1]) - int(fields[2])) * 4096
