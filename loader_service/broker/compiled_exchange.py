"""What a loading worker asks of the compiled partitions that are kept, and what it gives back.

The worker may be under a hostile model's control by then. It is held to the order of messages, to
`MOST_ENTRIES` questions and answers and to the size of an entry; what it names is one part of an
entry's place only, and what it gives is kept unread.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

from loader_service.broker.compiled_folder import SECRET_BYTES, CompiledFolder
from loader_service.broker.compiled_store import (
    KEY_BYTES,
    CacheLimits,
    CompiledStore,
    InMemory,
    place_of,
)
from loader_service.broker.groups import Owner
from loader_service.worker.control import (
    COMPILED_HEAD,
    COMPILED_LENGTH,
    MODEL_PIECE,
    MOST_ENTRIES,
    BadMessage,
    Message,
    pack,
)

SHARE_OF_AN_ORIGIN = 4
SHARE_OF_AN_ENTRY = 8
"""One of so many parts of all that is kept."""


def cache_limits(total: int) -> CacheLimits:
    """Divide what may be kept in all."""
    return CacheLimits(total, total // SHARE_OF_AN_ORIGIN, total // SHARE_OF_AN_ENTRY)


class CompiledPartitions:
    """The compiled partitions of a broker; one at a time is read or written, in a thread."""

    def __init__(self, total_bytes: int, directory: str | None) -> None:
        """Keep them in memory, or in a directory; raises OSError if that cannot be used."""
        limits = cache_limits(total_bytes)
        self._folder: CompiledFolder | None = None
        if directory is None or not total_bytes:
            self._store = CompiledStore(InMemory(), secrets.token_bytes(SECRET_BYTES), limits)
        else:
            self._folder = CompiledFolder(Path(directory))
            self._store = CompiledStore(self._folder, self._folder.secret, limits)
        self._turn = asyncio.Lock()

    @property
    def entry_bytes(self) -> int:
        """The largest entry; 0 if none is kept."""
        return self._store.limits.of_an_entry

    def exchange(self, owner: Owner, sha256: bytes, token: bytes) -> CompiledExchange:
        """Begin with a worker that loads a model with these bytes."""
        return CompiledExchange(self, owner, sha256, token)

    async def find(self, owner: Owner, place: bytes) -> bytes | None:
        """Return what was kept; see `CompiledStore.find`."""
        async with self._turn:
            return await asyncio.to_thread(self._store.find, owner, place)

    async def keep(self, owner: Owner, place: bytes, blob: bytes) -> None:
        """Keep a blob; see `CompiledStore.keep`."""
        async with self._turn:
            await asyncio.to_thread(self._store.keep, owner, place, blob)

    async def stop(self) -> None:
        """Let go of the directory, after what is under way."""
        async with self._turn:
            if self._folder is not None:
                self._folder.close()
                self._folder = None


class CompiledExchange:
    """One worker's questions and answers, while it loads its model; its messages come in order."""

    def __init__(
        self, partitions: CompiledPartitions, owner: Owner, sha256: bytes, token: bytes
    ) -> None:
        self._partitions = partitions
        self._owner = owner
        self._sha256 = sha256
        self._token = token
        self._questions = self._entries = 0
        self._place = b""
        self._missing = 0
        self._arriving = bytearray()

    async def took(self, kind: Message, payload: bytes) -> Iterator[bytes]:
        """Take a message; returns the messages that answer it. Raises BadMessage."""
        if kind is Message.WANTED:
            return answer(await self._find(payload))
        if kind is Message.COMPILED:
            self._announced(payload)
        else:
            await self._arrived(payload)
        return iter(())

    async def _find(self, key: bytes) -> bytes | None:
        self._questions += 1
        if len(key) != KEY_BYTES or self._questions > MOST_ENTRIES or self._missing:
            raise BadMessage("a compiled partition may not be asked for so")
        return await self._partitions.find(self._owner, self._place_of(key))

    def _announced(self, payload: bytes) -> None:
        self._entries += 1
        if len(payload) != COMPILED_HEAD.size or self._entries > MOST_ENTRIES or self._missing:
            raise BadMessage("a compiled partition may not come so")
        key, length = COMPILED_HEAD.unpack(payload)
        if not 0 < length <= self._partitions.entry_bytes:
            raise BadMessage(f"a compiled partition may not have {length} bytes")
        self._place, self._missing = self._place_of(key), length

    async def _arrived(self, payload: bytes) -> None:
        if not 0 < len(payload) <= self._missing:
            raise BadMessage("other bytes of a compiled partition came than were announced")
        self._missing -= len(payload)
        self._arriving += payload
        if not self._missing:
            blob, self._arriving = bytes(self._arriving), bytearray()
            await self._partitions.keep(self._owner, self._place, blob)

    def _place_of(self, key: bytes) -> bytes:
        return place_of(self._sha256, self._token, key)


def answer(blob: bytes | None) -> Iterator[bytes]:
    """Write the messages that answer a question: a length, and the bytes; 0 for nothing."""
    data = memoryview(blob or b"")
    yield pack(Message.CACHED, COMPILED_LENGTH.pack(len(data)))
    for start in range(0, len(data), MODEL_PIECE):
        yield pack(Message.CACHED, data[start : start + MODEL_PIECE])
