"""What a loading worker asks of the compiled partitions that are kept, and what it gives back.

The worker may be under a hostile model's control by then. It is held to the order of messages, to
`MOST_ENTRIES` questions and answers and to the size of an entry and of its pieces; what it names is
one part of an entry's place only, and what it gives is kept unread. What is on its way to and from
all workers together is no more than what may be kept: the rest is not found, or not kept.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

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
    COMPILED_PIECE,
    MODEL_PIECE,
    MOST_ENTRIES,
    BadMessage,
    Message,
    pack,
)

Result = TypeVar("Result")

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
        # One thread, which ends what it has begun even if nobody waits for that any more.
        self._thread = ThreadPoolExecutor(1, "compiled")
        self._on_their_way: Counter[Owner] = Counter()

    @property
    def entry_bytes(self) -> int:
        """The largest entry; 0 if none is kept."""
        return self._store.limits.of_an_entry

    @property
    def on_their_way(self) -> int:
        """Bytes of entries that come from workers or go to them just now."""
        return self._on_their_way.total()

    def exchange(self, owner: Owner, sha256: bytes, token: bytes) -> CompiledExchange:
        """Begin with a worker that loads a model with these bytes."""
        return CompiledExchange(self, owner, sha256, token)

    def let_through(self, owner: Owner, length: int) -> bool:
        """Count bytes that the broker will hold for a worker, if there is room; see `passed`."""
        limits = self._store.limits
        if (
            self._on_their_way[owner] + length > limits.of_an_origin
            or self.on_their_way + length > limits.total
        ):
            return False
        self._on_their_way[owner] += length
        return True

    def passed(self, owner: Owner, length: int) -> None:
        """Count those bytes no more."""
        self._on_their_way[owner] -= length
        if not self._on_their_way[owner]:
            del self._on_their_way[owner]

    def length(self, owner: Owner, place: bytes) -> int:
        """Return how long an entry is; see `CompiledStore.length`."""
        return self._store.length(owner, place)

    async def find(self, owner: Owner, place: bytes) -> bytes | None:
        """Return what was kept; see `CompiledStore.find`."""
        return await self._in_turn(lambda: self._store.find(owner, place))

    async def keep(self, owner: Owner, place: bytes, blob: bytes) -> None:
        """Keep a blob; see `CompiledStore.keep`."""
        await self._in_turn(lambda: self._store.keep(owner, place, blob))

    async def stop(self) -> None:
        """Let go of the directory, after what is under way; nothing is kept any more."""
        await self._in_turn(self._close)

    def _close(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None
        self._store = CompiledStore(InMemory(), b"", cache_limits(0))

    async def _in_turn(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


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
        self._held = 0
        """Bytes for which there is room: of the entry that comes, or of the answer that goes."""
        self._is_over = False

    async def took(self, kind: Message, payload: bytes) -> Iterator[bytes]:
        """Take a message; returns the messages that answer it. Raises BadMessage."""
        if kind is Message.WANTED:
            return self._answered(await self._find(payload))
        if kind is Message.COMPILED:
            self._announced(payload)
        else:
            await self._arrived(payload)
        return iter(())

    def close(self) -> None:
        """Forget what has not come or gone whole: the load is over."""
        self._is_over = True
        self._arriving = bytearray()
        self._let_go()

    async def _find(self, key: bytes) -> bytes | None:
        self._questions += 1
        if len(key) != KEY_BYTES or self._questions > MOST_ENTRIES or self._missing:
            raise BadMessage("a compiled partition may not be asked for so")
        place = self._place_of(key)
        if not self._hold(self._partitions.length(self._owner, place)):
            return None
        blob = await self._partitions.find(self._owner, place)
        if self._is_over:
            raise BadMessage("a compiled partition may not be asked for after the load")
        # Another load of the same model may have given a longer one meanwhile.
        return blob if blob is not None and len(blob) <= self._held else None

    def _answered(self, blob: bytes | None) -> Iterator[bytes]:
        yield from answer(blob)
        self._let_go()

    def _announced(self, payload: bytes) -> None:
        self._entries += 1
        if len(payload) != COMPILED_HEAD.size or self._entries > MOST_ENTRIES or self._missing:
            raise BadMessage("a compiled partition may not come so")
        key, length = COMPILED_HEAD.unpack(payload)
        if not 0 < length <= self._partitions.entry_bytes:
            raise BadMessage(f"a compiled partition may not have {length} bytes")
        self._place, self._missing = self._place_of(key), length
        self._hold(length)

    async def _arrived(self, payload: bytes) -> None:
        # In whole pieces: a message costs time, however short it is.
        if not payload or len(payload) != min(self._missing, COMPILED_PIECE):
            raise BadMessage("other bytes of a compiled partition came than were announced")
        self._missing -= len(payload)
        if not self._held:
            return
        self._arriving += payload
        if not self._missing:
            blob, self._arriving = bytes(self._arriving), bytearray()
            await self._partitions.keep(self._owner, self._place, blob)
            self._let_go()

    def _hold(self, length: int) -> bool:
        """Have room for so many bytes, of which there are more than none; returns whether."""
        if length and self._partitions.let_through(self._owner, length):
            self._held = length
        return bool(self._held)

    def _let_go(self) -> None:
        held, self._held = self._held, 0
        if held:
            self._partitions.passed(self._owner, held)

    def _place_of(self, key: bytes) -> bytes:
        return place_of(self._sha256, self._token, key)


def answer(blob: bytes | None) -> Iterator[bytes]:
    """Write the messages that answer a question: a length, and the bytes; 0 for nothing."""
    data = memoryview(blob or b"")
    yield pack(Message.CACHED, COMPILED_LENGTH.pack(len(data)))
    for start in range(0, len(data), MODEL_PIECE):
        yield pack(Message.CACHED, data[start : start + MODEL_PIECE])
