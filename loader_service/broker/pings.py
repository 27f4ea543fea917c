"""Whether a serving worker still answers: one ping at a time, and how long it is silent."""

from __future__ import annotations

import struct

from loader_service.worker.control import PONG, BadMessage

PING = struct.Struct("<Q")
PING_SLACK_SECONDS = 1
"""A worker looks for pings between calls, at most every quarter second: so much later than
``compute_seconds`` an answer may come although no single computation took longer."""


class Pings:
    """The pings of one worker."""

    def __init__(self) -> None:
        self.calls = 0
        """Computations that the worker reports; its own word."""
        self._number = 0
        self._asked_at: float | None = None

    def ask(self, now: float) -> bytes | None:
        """Return the ping to send at this time; None while one is unanswered."""
        if self._asked_at is not None:
            return None
        self._number += 1
        self._asked_at = now
        return PING.pack(self._number)

    def answered(self, payload: bytes) -> None:
        """Take a pong; raises BadMessage for one that nobody asked for."""
        if len(payload) != PONG.size:
            raise BadMessage("a pong of the wrong size")
        number, calls = PONG.unpack(payload)
        if number != self._number or self._asked_at is None:
            raise BadMessage("a pong without a ping")
        self._asked_at = None
        self.calls = calls

    def silence(self, now: float) -> float:
        """Seconds that a ping has waited for its answer."""
        return 0.0 if self._asked_at is None else now - self._asked_at
