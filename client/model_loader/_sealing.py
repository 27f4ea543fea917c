"""Putting a model into sealed memory, from where the service reads it without another copy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress

from model_loader_wire import sealed

from ._source import Source

SEALED_FROM = 256 << 10
"""Bytes from which this road is quicker than a gRPC stream."""


class Sealing:
    """Memory that takes in a source's bytes and is sealed when they are all there."""

    def __init__(self, source: Source) -> None:
        """Make the memory; raises OSError where the kernel has none of this kind."""
        self.descriptor = sealed.make()
        self._chunks: Iterator[bytes | memoryview] = source.chunks(hashed=False)
        self.size = 0

    def fill(self) -> bool:
        """Put in a chunk; returns False, and seals, once all are in. Raises as `Source.chunks`."""
        chunk = next(self._chunks, None)
        if chunk is None:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, sealed.SEALS)
            return False
        view = memoryview(chunk)
        self.size += len(view)
        while len(view):
            view = view[os.write(self.descriptor, view) :]
        return True

    def close(self) -> None:
        """Close this process's descriptor; the service has its own."""
        with suppress(OSError):
            os.close(self.descriptor)
