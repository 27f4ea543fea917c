"""A model's bytes as sealed memory (a memfd): read by the broker's system calls, never by it.

Sealed means that nobody, its maker included, can change what is in there any more. So what is
hashed is what the worker gets, although a client may hold the same memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass, field

from loader_service.broker.refusal import refuse
from model_loader_wire.causes import Cause
from model_loader_wire.sealed import SEALS, make

BLOCK = 512
"""Bytes of one of ``st_blocks``."""
HASHED_AT_A_TIME = 4 << 20
"""Bytes that a thread hashes, some milliseconds long, before others have their turn."""


class ModelBytes:
    """Immutable bytes behind a descriptor; whoever holds some closes them."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor; raises Refusal, having closed it, unless it is sealed memory."""
        self._descriptor = descriptor
        self.may_be_kept = True
        """Whether who has loaded them may name them again by their digest alone."""
        try:
            self.size = _sealed_size(descriptor)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def copy(self) -> ModelBytes:
        """Return the same bytes behind a descriptor of their own."""
        return ModelBytes(fcntl.fcntl(self._descriptor, fcntl.F_DUPFD_CLOEXEC, 0))

    def close(self) -> None:
        """Let go of the bytes; safe more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def sha256(self) -> bytes:
        """Hash the bytes, in threads; they may be closed meanwhile.

        A thread that runs cannot be stopped. So each piece is work of its own: who hashes much
        takes turns with the others, and a load that is cancelled holds a thread no longer than a
        piece takes.
        """
        digest = hashlib.sha256()
        # The mapping has a descriptor of its own, which must not wait for the collector.
        with (
            mmap.mmap(self._descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory,
            memoryview(memory) as content,
        ):
            for start in range(0, self.size, HASHED_AT_A_TIME):
                with content[start : start + HASHED_AT_A_TIME] as piece:
                    await _finished(asyncio.create_task(asyncio.to_thread(digest.update, piece)))
        return digest.digest()


async def _finished(work: asyncio.Task[None]) -> None:
    """Wait for work in a thread to its end, also if the waiting is cancelled."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


@dataclass(slots=True)
class Collecting:
    """Memory that takes in an upload piece by piece, to be sealed at its end."""

    _descriptor: int = field(default_factory=make)

    def add(self, piece: memoryview) -> None:
        """Append; raises OSError if there is no memory for it."""
        while len(piece):
            piece = piece[os.write(self._descriptor, piece) :]

    def seal(self) -> ModelBytes:
        """Close it to all change and give what is in there."""
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, SEALS)
        descriptor, self._descriptor = self._descriptor, -1
        return ModelBytes(descriptor)

    def close(self) -> None:
        """Give the memory back, unless it was sealed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sealed_size(descriptor: int) -> int:
    """Return the length of sealed memory; raises Refusal for any other file."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise refuse(Cause.INVALID_INPUT, "what was offered is no memory (memfd)") from None
    if seals & SEALS != SEALS:
        raise refuse(
            Cause.INVALID_INPUT,
            "the memory that was offered is not sealed against writing, growing and shrinking",
        )
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise refuse(Cause.INVALID_INPUT, "the memory that was offered cannot be read")
    size = os.fstat(descriptor).st_size
    # To read a hole would make memory that only the broker pays for.
    if not size or _has_holes(descriptor, size):
        raise refuse(Cause.INVALID_INPUT, "the memory that was offered is empty or has holes")
    return size


def _has_holes(descriptor: int, size: int) -> bool:
    """Whether there are bytes without memory, which a sealed file never gets later.

    The count of blocks is not enough: there may be some beyond the end. Nor is the search for a
    hole, which knows none in huge pages.
    """
    blocks = os.fstat(descriptor).st_blocks
    return blocks * BLOCK < size or os.lseek(descriptor, 0, os.SEEK_HOLE) < size
