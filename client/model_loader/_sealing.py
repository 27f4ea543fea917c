"""Putting a model into sealed memory, from where the service reads it without another copy."""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Iterator

from model_loader_wire import sealed

from ._attach import AttachConnection
from ._source import Source

SEALED_FROM = 256 << 10
"""Bytes from which this road is quicker than a gRPC stream."""


class Sealing:
    """Memory that takes in a source's bytes and is sealed when they are all there.

    It may be closed, or forgotten, while a thread is at work here whose caller was cancelled: the
    descriptor's number, which can be another file's by then, is not used any more.
    """

    def __init__(self, source: Source) -> None:
        """Make the memory; raises OSError where the kernel has none of this kind."""
        self._descriptor = sealed.make()
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self._lock = threading.Lock()
        self._chunks: Iterator[bytes | memoryview] = source.chunks(hashed=False)
        self.size = 0

    def fill(self) -> bool:
        """Put in a chunk; returns False, and seals, once all are in.

        Raises as `Source.chunks`, or ValueError once it is closed.
        """
        chunk = next(self._chunks, None)  # this may take long
        with self._lock:
            descriptor = self._usable()
            if chunk is None:
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sealed.SEALS)
                return False
            view = memoryview(chunk)
            self.size += len(view)
            while len(view):
                view = view[os.write(descriptor, view) :]
        return True

    def offer(self, attach: AttachConnection) -> bytes:
        """Offer the service what was sealed; gives its name for the load."""
        with self._lock:
            copy = os.dup(self._usable())
        try:
            return attach.offer(copy, self.size)
        finally:
            os.close(copy)

    def close(self) -> None:
        """Close this process's descriptor; the service has its own."""
        with self._lock:
            self._finalizer()

    def _usable(self) -> int:
        if not self._finalizer.alive:
            raise ValueError("the memory was closed")
        return self._descriptor
