"""The worker's side of the compiled partitions that its broker keeps: a `devices.device.Cache`."""

from __future__ import annotations

import socket

from loader_service.worker.control import (
    COMPILED_HEAD,
    COMPILED_LENGTH,
    COMPILED_PIECE,
    MOST_ENTRIES,
    BadMessage,
    Message,
    pack,
)
from loader_service.worker.receiving import receive
from loader_service.worker.saying import say


class BrokerCache:
    """Asks the broker, as long as the model loads; afterwards nothing is found, and nothing kept.

    While a model serves, other messages come on the control socket.
    """

    def __init__(self, control: socket.socket, entry_bytes: int) -> None:
        """Offer entries of at most so many bytes."""
        self._control = control
        self._entry_bytes = entry_bytes
        self._questions = self._entries = 0
        self.is_open = True

    def get(self, key: bytes) -> bytes | None:
        """Return what is kept under a key of 32 bytes, or None."""
        if not self.is_open or self._questions == MOST_ENTRIES:
            return None
        self._questions += 1
        say(self._control, pack(Message.WANTED, key))
        _, head = receive(self._control, Message.CACHED)
        (length,) = COMPILED_LENGTH.unpack(head)
        blob = bytearray()
        while len(blob) < length:
            _, piece = receive(self._control, Message.CACHED)
            blob += piece
        if len(blob) != length:
            raise BadMessage("a compiled partition has another length than was said")
        return bytes(blob) if length else None

    def put(self, key: bytes, blob: bytes) -> None:
        """Offer a blob for keeping; too large a one is let go."""
        if not self.is_open or self._entries == MOST_ENTRIES:
            return
        if not 0 < len(blob) <= self._entry_bytes:
            return
        self._entries += 1
        say(self._control, pack(Message.COMPILED, COMPILED_HEAD.pack(key, len(blob))))
        view = memoryview(blob)
        for start in range(0, len(view), COMPILED_PIECE):
            piece = view[start : start + COMPILED_PIECE]
            say(self._control, pack(Message.COMPILED_PART, piece))

    def close(self) -> None:
        """Ask no more."""
        self.is_open = False
