"""Connections that are open to a service, and say nothing or nothing more."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic

from tests.fuzz.campaign import Table


def connect(path: Path, seconds: float) -> socket.socket:
    """Connect to a Unix socket; whatever takes longer than so long raises TimeoutError."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.settimeout(seconds)
    return connection


def see_last_sent_away(path: Path, count: int, seconds: float) -> None:
    """Come with more than there are seats; raises AssertionError if the last one has one."""
    crowd = [connect(path, seconds) for _ in range(count)]
    try:
        with suppress(ConnectionError):
            assert crowd[-1].recv(1) == b"", f"the last of {count} has a seat"
    finally:
        for connection in crowd:
            connection.close()


class Silent:
    """Those that their service must close when they have been silent for long enough."""

    def __init__(self, table: Table, seconds: float, most: int) -> None:
        """Look after so many at a time, each for so long before it is seen to be closed."""
        self._table = table
        self._seconds = seconds
        self._most = most
        self._waiting: deque[tuple[float, int, socket.socket]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, item: int, connection: socket.socket) -> None:
        """Take one on, by its number."""
        self._waiting.append((monotonic(), item, connection))

    def look(self) -> None:
        """See that those are closed whose time has come, and the oldest of too many."""
        while self._waiting and (
            len(self._waiting) > self._most or monotonic() - self._waiting[0][0] > self._seconds
        ):
            self._see_closed()

    def see_all_closed(self) -> None:
        """See that each is closed."""
        while self._waiting:
            self._see_closed()

    def _see_closed(self) -> None:
        since, item, connection = self._waiting.popleft()
        with connection:
            try:
                with suppress(ConnectionError):
                    while connection.recv(4096):
                        pass
            except TimeoutError:
                age = monotonic() - since
                self._table.find(f"{item}: a silent connection is open after {age:.0f} s")
