"""Where a model's bytes come from: a bytes-like object, a path, or a binary file object."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_loader_wire.causes import Cause, printable

from .errors import ConstraintError, DataError, QuotaExceededError

CHUNK = 1 << 20
"""Bytes of a model that travel in one message."""
LABEL_LENGTH = 200
SAMPLES, SAMPLE_LENGTH = 16, 64
"""How many pieces of a model, and of how many bytes each, are looked at to tell it from others."""

Progress = Callable[[int, int], object]


class Source:
    """A model's bytes, read once in chunks and hashed on the way.

    ``size`` is 0 where it cannot be known beforehand. ``sent`` counts what was read so far.
    """

    def __init__(self, source: Any, maximum: int | None) -> None:
        """Open the source; raises ConstraintError, DataError, QuotaExceededError or OSError."""
        self._maximum = maximum
        self._file: Any = None
        self._owned = False
        self._view: memoryview | None = None
        self.label = ""
        self.size = 0
        self.sent = 0
        self._digest = hashlib.sha256()
        if isinstance(source, str | os.PathLike):
            self._open(os.fspath(source))
        elif isinstance(source, io.TextIOBase):
            raise ConstraintError("the file object must be binary: open the model with mode 'rb'")
        elif hasattr(source, "read"):
            self._file = source
            name = getattr(source, "name", "")
            self.label = label_of(name) if isinstance(name, str) else ""
            self.size = _size_left(source)
        else:
            self._look(source)
        try:
            self._check_size(self.size)
        except BaseException:
            self.close()
            raise

    @property
    def sha256(self) -> bytes:
        """Digest of what was read so far."""
        return self._digest.digest()

    def chunks(self, *, hashed: bool = True) -> Iterator[bytes | memoryview]:
        """Read to the end; raises DataError if there is nothing, or not the size that was said."""
        while chunk := self._read():
            self.sent += len(chunk)
            self._check_size(self.sent)
            if hashed:
                self._digest.update(chunk)
            yield chunk
        if self.sent == 0:
            raise _empty()
        if self.size and self.sent != self.size:
            raise DataError(
                f"the source changed while it was read: {self.sent} bytes came of {self.size}",
                cause=Cause.BAD_SOURCE,
            )

    def mark(self) -> int:
        """A number by which models mostly differ: made of the size, and of bytes from all over.

        Of the size alone where the bytes cannot be read a second time.
        """
        if not self.rereadable:
            return self.size
        last = max(0, self.size - SAMPLE_LENGTH)
        places = (last * number // (SAMPLES - 1) for number in range(SAMPLES))
        return hash((self.size, *map(self._sample, places)))

    @property
    def rereadable(self) -> bool:
        """Whether the bytes are there to be read a second time."""
        return self.size > 0 and (self._view is not None or self._owned)

    def find_digest(self) -> bytes:
        """Hash everything; what was hashed is still to be read."""
        for _ in self.chunks():
            pass
        digest = self.sha256
        self.sent = 0
        self._digest = hashlib.sha256()
        if self._owned:
            self._file.seek(0)
        return digest

    def close(self) -> None:
        """Close a file that was opened here; a caller's file object stays open."""
        if self._owned:
            self._file.close()
        self._view = None

    def _open(self, path: str | bytes) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by close()
        self._owned = True
        self.label = label_of(path)
        try:
            facts = os.fstat(self._file.fileno())
            if stat.S_ISREG(facts.st_mode):
                self.size = facts.st_size
                if not self.size:
                    raise _empty()
        except BaseException:
            self.close()
            raise

    def _look(self, source: Any) -> None:
        try:
            view = memoryview(source)
        except TypeError:
            raise ConstraintError(
                "a model is loaded from a bytes-like object, a path or a binary file object, not "
                f"{type(source).__name__}"
            ) from None
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        if not view.nbytes:
            raise _empty()
        self._view = view.cast("B")
        self.size = view.nbytes

    def _sample(self, place: int) -> bytes:
        if self._view is not None:
            return bytes(self._view[place : place + SAMPLE_LENGTH])
        return os.pread(self._file.fileno(), SAMPLE_LENGTH, place)

    def _read(self) -> bytes | memoryview:
        if self._view is not None:
            return self._view[self.sent : self.sent + CHUNK]
        chunk = self._file.read(CHUNK)
        if chunk is None:
            raise ConstraintError("the file object is non-blocking and has no bytes now")
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise ConstraintError(
                f"the file object must be binary: its read() gave {type(chunk).__name__}"
            )
        return bytes(chunk)

    def _check_size(self, size: int) -> None:
        if self._maximum is not None and size > self._maximum:
            raise QuotaExceededError(
                f"the model is {size} bytes or more, the limit model_bytes is {self._maximum}",
                limit="model_bytes",
                value=size,
                maximum=self._maximum,
            )


def _empty() -> DataError:
    return DataError("the model's source is empty", cause=Cause.INVALID_MODEL)


def label_of(path: str | bytes | os.PathLike[str]) -> str:
    """Return what a model from that file is called: its name, fit to be shown."""
    return printable(Path(os.fsdecode(path)).name, LABEL_LENGTH)


def _size_left(file: Any) -> int:
    """Return the bytes from here to the end of a seekable file, else 0."""
    try:
        here: int = file.tell()
        end: int = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (AttributeError, OSError, ValueError):
        return 0
    return max(0, end - here) if isinstance(end, int) and isinstance(here, int) else 0
