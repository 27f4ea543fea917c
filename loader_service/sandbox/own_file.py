"""The one file that a device may be granted, for libraries that read nothing but files.

It lies in memory, in the worker's otherwise empty root. By name it can be read and not written; the
descriptor that the worker has from its birth can write it. The process has at most one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from loader_service.sandbox.empty_root import RootFile


class OwnFile:
    """The file: its name, and the descriptor that writes it."""

    def __init__(self, file: RootFile, descriptor: int, directory: str = "/") -> None:
        """Take over an open descriptor of a file that is empty, and lies in `directory`."""
        self.descriptor: Final = descriptor
        self.bytes: Final = file.bytes
        self._path = os.path.join(directory, file.name)

    @contextmanager
    def holding(self, *pieces: bytes) -> Iterator[str]:
        """Have the file hold these pieces for a while; gives its path. Raises `OSError`."""
        done = 0
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    count = os.pwrite(self.descriptor, view, done)
                    done += count
                    view = view[count:]
            yield self._path
        finally:
            os.ftruncate(self.descriptor, 0)


_given: list[OwnFile] = []


def give(file: OwnFile) -> None:
    """Let the devices of this process find it; for the worker, at its birth."""
    _given[:] = [file]


def given() -> OwnFile | None:
    """Return the file of this process, if it was granted one and the host gave it a root."""
    return _given[0] if _given else None
