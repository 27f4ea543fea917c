"""A worker's stderr: read at a bounded rate, its tail kept for error messages."""

from __future__ import annotations

import asyncio
import logging
import os

from loader_service.broker.settings import STDERR_BYTES_PER_SECOND
from model_loader_wire.causes import printable

log = logging.getLogger("model_loader.worker")

KEPT = 4096
"""Bytes of tail."""
PER_SECOND = STDERR_BYTES_PER_SECOND
"""Bytes read in a second, unless a setting says otherwise."""


class LastWords:
    """The reading end of one worker's stderr pipe."""

    def __init__(self, descriptor: int, per_second: int = PER_SECOND) -> None:
        """Take over the descriptor (non-blocking) and begin to read.

        A worker that writes more than so many bytes a second waits.
        """
        self._per_second = per_second
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._tail = b""
        self._read = 0
        self._hidden = False
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        if not self._take():
            self.close()
        elif self._read >= self._per_second and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._pause = self._loop.call_later(1, self._resume)

    def _resume(self) -> None:
        self._read, self._pause = 0, None
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._readable)

    def _take(self) -> bool:
        """Read once; False at the end."""
        if self._descriptor is None:
            return False
        try:
            data = os.read(self._descriptor, min(65536, max(self._per_second, KEPT)))
        except BlockingIOError:
            return True
        self._read += len(data)
        self._tail = (self._tail + data)[-KEPT:]
        return bool(data)

    def text(self) -> str:
        """Return the tail so far as safe text; nothing if it is hidden."""
        if self._descriptor is not None:
            self._take()
        text = printable(self._tail.decode("utf-8", "replace").strip())
        if not self._hidden:
            return text
        log.info("last words of a worker, which its caller is not told: %s", text)
        return ""

    def hide(self) -> None:
        """Have nobody but the log hear them."""
        self._hidden = True

    def close(self) -> None:
        """Stop reading."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
