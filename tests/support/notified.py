"""A daemon whose service manager is a test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS


class Notified:
    """``model-loaderd``, and the socket on which it tells how it is."""

    def __init__(self, folder: Path, *flags: str, watchdog_seconds: float | None = None) -> None:
        """Start it; `wait_for` waits until it is ready."""
        self.directory = folder / "service"
        self._heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        if watchdog_seconds is not None:
            environment["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1_000_000))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "loader_service.broker.daemon"),
                *(f"--directory={self.directory}", "--spare-seconds=0", *flags),
            ],
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Notified:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()

    def wait_for(self, *lines: str) -> None:
        """Wait until these lines have come, in this order; others may come between them."""
        deadline = time.monotonic() + HANG_SECONDS
        for line in lines:
            while line not in self._heard:
                ended = self.process.poll() is not None
                heard = self._hear(0 if ended else 1)
                assert heard or not ended, f"it ended, and {line} did not come"
                assert time.monotonic() < deadline, f"{line} did not come, but {self._heard}"
            del self._heard[: self._heard.index(line) + 1]

    def wait_for_silence(self, seconds: float) -> None:
        """Wait until nothing has come for so long; what came before that is forgotten."""
        deadline = time.monotonic() + HANG_SECONDS
        while self._hear(seconds):
            assert time.monotonic() < deadline, f"never silent for {seconds} s: {self._heard}"
        self._heard.clear()

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        return not self._hear(seconds)

    def _hear(self, seconds: float) -> bool:
        self._socket.settimeout(max(seconds, 0.01))
        try:
            self._heard += self._socket.recv(10_000).decode().split("\n")
        except TimeoutError:
            return False
        return True
