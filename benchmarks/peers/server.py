"""A peer's server as a child process: started, waited for, and ended with all of its own.

Imports nothing but the standard library, as it runs in the peer's Python environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

READY_SECONDS = 60.0
"""A server that is not ready by then will not be."""
END_SECONDS = 10.0
"""How long a server is given to end by itself."""
LOOK_SECONDS = 0.02
LAST_WORDS = 1500
LOG = "server.log"
ENDS_WITH_ITS_STARTER = """
import ctypes, os, signal, sys
starter, *command = sys.argv[1:]
SET_PARENT_DEATH_SIGNAL = 1
if ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0):
    sys.exit("the kernel sets no signal for the end of the starter")
if os.getppid() == int(starter):
    os.execvp(command[0], command)
"""
"""If the starter is killed, nobody else ends the server. A function between fork and exec would do
the same, but makes Python fork the whole process, in which gRPC's threads may abort."""


class NotStarted(RuntimeError):
    """The server ended, or was not ready in time; the message ends with what it wrote last."""


class Server:
    """One server in a process group of its own, in a folder of its own."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Start it; `environment` is all that it has of one, beside PATH and HOME."""
        self._log = folder / LOG
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", ENDS_WITH_ITS_STARTER),
                    *(str(os.getpid()), *command),
                ],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": str(folder), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def group(self) -> int:
        """The process group of the server and all its children."""
        return self._process.pid

    def wait(self, is_ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Ask until it is ready; raises NotStarted."""
        ends = time.monotonic() + seconds
        while not is_ready():
            if self._has_ended():
                raise NotStarted(f"it ended:\n{self._last_words()}")
            if time.monotonic() > ends:
                raise NotStarted(f"it was not ready within {seconds:g} s:\n{self._last_words()}")
            time.sleep(LOOK_SECONDS)

    def close(self, seconds: float = END_SECONDS) -> None:
        """Ask the server to end; then kill what is left of its group, and wait for that."""
        if self._process.returncode is not None:
            return
        # Not by `terminate`, which would reap it: until then its number, which is the group's, is
        # nobody else's.
        os.kill(self.group, signal.SIGTERM)
        ends = time.monotonic() + seconds
        while not self._has_ended() and time.monotonic() < ends:
            time.sleep(LOOK_SECONDS)
        os.killpg(self.group, signal.SIGKILL)
        self._process.wait()
        ends = time.monotonic() + seconds
        while self._is_left() and time.monotonic() < ends:
            time.sleep(LOOK_SECONDS)

    def _has_ended(self) -> bool:
        """Whether the server has ended; its number is kept."""
        looked = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, looked) is not None

    def _is_left(self) -> bool:
        """Whether somebody of the group is there."""
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-LAST_WORDS:].strip()


def free_port() -> int:
    """A port of the loopback interface that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
