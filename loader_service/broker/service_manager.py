"""What the daemon tells the service manager that started it: the part of sd_notify(3) it needs.

Messages go to a datagram socket that the environment names. Where it names none, nobody is told;
a manager that has gone, or does not read, holds up nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

PINGS_PER_PERIOD = 3
"""Of the watchdog: one that comes late, or is left out once, does not end the service."""


class ServiceManager:
    """Who started this process and waits for news of it; perhaps nobody."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """Tell the socket at `address`; one in the abstract namespace begins with ``@``."""
        self._address = None if address is None else _unix_address(address)
        self.watchdog_seconds = watchdog_seconds
        """How long the service may be silent; None: as long as it likes."""

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Return who started this process; what it starts itself is not to find the variables."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        if not microseconds.isdecimal() or watched != str(os.getpid()) or not int(microseconds):
            return cls(address)
        return cls(address, int(microseconds) / 1_000_000)

    @property
    def ping_seconds(self) -> float | None:
        """How often `alive` is to be told; None: never."""
        seconds = self.watchdog_seconds
        return None if seconds is None or self._address is None else seconds / PINGS_PER_PERIOD

    def ready(self, status: str) -> None:
        """Say that clients can attach, or that a configuration that was read again holds."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say in one line how the service is."""
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """Say that the service works, as the watchdog wants to hear it."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, seconds: float, status: str) -> None:
        """Say that the service is ending, and may take so long for it."""
        microseconds = int(seconds * 1_000_000)
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={microseconds}", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _unix_address(address: str) -> str | None:
    """Return a socket's address as the kernel writes it; None for what is no Unix socket's."""
    if address.startswith("@"):
        return "\0" + address[1:]
    return address if address.startswith("/") else None
