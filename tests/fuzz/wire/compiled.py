"""Loading worker to broker: hostile questions for compiled partitions, and hostile offers of them.

As in ``to_broker`` the test holds the worker's end of the control socket of a real handle. Behind
it are real stores, in memory and in a folder, which workers of several owners use at a time, some
of which die, or do not read what they asked for. Nobody is ever given what was not kept by the same
owner for the same model, token and key; and an honest one finds what it gave, whatever others do.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import socket
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from loader_service.broker.compiled_exchange import CompiledExchange, CompiledPartitions
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.broker.reports import read_description
from loader_service.broker.worker import Worker
from loader_service.worker.control import Message
from model_loader_wire.causes import Cause, Failure
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.blobs import (
    DESCRIPTION,
    KEYS,
    LOADED,
    READY,
    WANTED,
    answers,
    blob_of,
    conversation,
    due,
    many_offers,
    message,
    offer,
)
from tests.fuzz.wire.damage import damaged
from tests.fuzz.wire.replies import open_descriptors
from tests.fuzz.wire.to_broker import check_failure, handle, see_nothing_left
from tests.support.fake_worker import GO
from tests.support.usage import resident_bytes

TOGETHER = 24
"""Workers at a time, beside an honest one."""
HANG_SECONDS = 60.0
DEAF_SECONDS = 1.0
"""How long the load of a worker lasts that reads nothing."""
TOTALS = (1 << 20, 16 << 20)
"""What the stores may keep: the one in a folder, the one in memory."""
HOSTILE = (Owner(1000, "a"), Owner(1000, "b"), Owner(1001, "a"))
"""Three and the honest one: an origin has a quarter, so that none can push out another."""
SMALL = HOSTILE[1]
"""Gives many small entries, and no large ones that would push those out."""
HONEST = Owner(1002, "a")
PLACES = tuple((model * 32, token * 32) for model in (b"m", b"n") for token in (b"t", b"u"))
"""SHA-256 of models, and tokens."""
MANNERS = ("as it should", "dies", "deaf", "too early")
"""How a worker talks: ``deaf``: it reads nothing; ``too early``: before it has its model."""
STAYS_SECONDS = 0.2
"""How long a worker that has said all stays there, if its load does not end."""
LIVES = (0, 0.001, 0.01, 0.1)
"""Seconds until it dies, if it does."""
KILLED = Failure(Cause.KILLED, "the test ends it")
MOST_MESSAGES = 16 + 16 * (1 + 4) + 1
"""In one load: questions, and heads and pieces of entries; and one that ends it."""
MEMORY_BYTES = 96 << 20
"""Of this process beyond what it had: what it makes up, and what the stores keep."""
Place = tuple[Owner, bytes, bytes, bytes]


class Counting(CompiledExchange):
    """Counts what one worker makes the broker take in, and hold for all of them."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.taken: list[int] = []
        """Bytes that were held after each message."""

    async def took(self, kind: Message, payload: bytes) -> Any:
        """Take a message."""
        self.taken.append(self._partitions.on_their_way)
        return await super().took(kind, payload)


class Shelves:
    """A store, and what was ever given to it, by its place."""

    def __init__(self, total: int, folder: Path | None) -> None:
        self.partitions = CompiledPartitions(total, None if folder is None else str(folder))
        self.folder = folder
        self.total = total
        self.given: defaultdict[Place, set[bytes]] = defaultdict(set)
        """SHA-256 of the blobs that may be found."""
        self.honest = b""
        """What the honest one gave last."""
        self.honest_files: set[str] = set()
        self.found = self.missed = 0

    def check(
        self, owner: Owner, model: bytes, token: bytes, asked: list[bytes], said: Any
    ) -> None:
        """Hold answers against what was given; raises AssertionError."""
        for key, blob in zip(asked, said, strict=False):
            if blob:
                assert sha256(blob).digest() in self.given[owner, model, token, key], (
                    f"{owner} is given {len(blob)} bytes that it never gave"
                )
            self.found += bool(blob)
            self.missed += not blob

    def damage(self, random: Random) -> None:
        """Do something to an entry's file that a disk, or another program, may do."""
        assert self.folder is not None
        names = sorted(set(os.listdir(self.folder)) - self.honest_files - {"secret"})
        if not names:
            return
        path, other = (self.folder / random.choice(names) for _ in range(2))
        what = random.randrange(7)
        if not path.is_file() or path.is_symlink():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif what == 0:
            path.write_bytes(damaged(path.read_bytes()[:1000], random))
        elif what == 1:
            os.truncate(path, random.choice((0, 1, 31, 32, 33, self.total)))
        elif what == 2 and other.is_file() and other != path:
            shutil.copyfile(other, path)
        elif what >= 3:
            path.unlink()
            if what == 4:
                path.symlink_to("/etc/passwd")
            elif what == 5:
                os.mkfifo(path)
            elif what == 6:
                path.mkdir()

    def look(self) -> Iterable[str]:
        """Say what may not be while nothing is under way."""
        if self.partitions.on_their_way:
            yield f"{self.partitions.on_their_way} bytes are still on their way"
        if self.folder is not None:
            blocks = sum(
                entry.stat(follow_symlinks=False).st_blocks for entry in os.scandir(self.folder)
            )
            # The secret has a block, and a directory that was put there, too.
            if blocks * 512 > self.total + (64 << 10):
                yield f"the folder occupies {blocks * 512} bytes"


def compiled(seed: int, count: int, seconds: float | None = None) -> Table:
    """Let so many workers ask and offer."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_compiled(seed, count, seconds, Path(folder) / "kept"))


async def _compiled(seed: int, count: int, seconds: float | None, folder: Path) -> Table:
    table = Table("Control socket, compiled partitions of a loading worker")
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    began = monotonic()
    # What is done to the folder is said there, each time.
    logging.getLogger("model_loader.devices").setLevel(logging.CRITICAL)
    both = [Shelves(TOTALS[0], folder), Shelves(TOTALS[1], None)]
    for shelves in both:
        await _be_honest(table, shelves, Random(seed))
    before, tasks, memory = open_descriptors(), len(asyncio.all_tasks()), _in_use()
    batch: list[int] = []
    honest = 0

    async def run_batch() -> None:
        nonlocal honest
        random = Random(f"compiled {seed} {batch[0]}")
        shelves = both[batch[0] // TOGETHER % 2]
        workers = [_one(table, shelves, seed, number) for number in batch]
        await asyncio.gather(*workers, _be_honest(table, shelves, random))
        honest += 1
        batch.clear()
        await see_nothing_left(table, before, tasks, honest * TOGETHER)
        for what in shelves.look():
            table.find(what)
        if shelves.folder is not None and random.random() < 0.5:
            shelves.damage(random)

    for item in numbered(count, seconds):
        batch.append(item)
        if len(batch) == TOGETHER:
            await run_batch()
    if batch:
        await run_batch()
    if (grown := _in_use() - memory) > MEMORY_BYTES:
        table.find(f"the process has {grown} bytes more than before")
    for shelves in both:
        await shelves.partitions.stop()
    table.facts["answers that an honest worker was given"] = honest
    table.facts["blobs found"] = sum(shelves.found for shelves in both)
    table.facts["questions for what was not there"] = sum(shelves.missed for shelves in both)
    table.facts["KiB that the process grew"] = max(0, grown) >> 10
    table.facts["faults of callbacks"] = len(faults)
    for fault in faults:
        table.find(f"a callback failed: {fault}")
    table.seconds = monotonic() - began
    return table


async def _be_honest(table: Table, shelves: Shelves, random: Random) -> None:
    """Ask for what was given last, and give something else."""
    blob = blob_of(random, shelves.partitions.entry_bytes)
    words = [message(WANTED, KEYS[0]), *offer(KEYS[0], blob), message(WANTED, KEYS[0])]
    stream = b"".join([*words, message(LOADED, DESCRIPTION)])
    expected, shelves.honest = [shelves.honest, blob], blob
    files = set(os.listdir(shelves.folder)) if shelves.folder is not None else set()
    try:
        async with asyncio.timeout(HANG_SECONDS):
            end, said = await Talk(stream).load(Counting(shelves.partitions, HONEST, *PLACES[0]))
        assert end == "loaded", end
        assert said == expected, f"{[len(one) for one in said]} bytes, not its own"
    except Exception as error:
        table.find(f"an honest worker: {type(error).__name__}: {error}")
    if not shelves.honest_files and shelves.folder is not None:
        shelves.honest_files = set(os.listdir(shelves.folder)) - files


async def _one(table: Table, shelves: Shelves, seed: int, item: int) -> None:
    random = Random(f"compiled {seed} {item}")
    owner, (model, token) = random.choice(HOSTILE), random.choice(PLACES)
    longest = shelves.partitions.entry_bytes
    if owner is SMALL and random.random() < 0.7:
        stream = b"".join([*many_offers(random), message(LOADED, DESCRIPTION)])
    else:
        stream = b"".join(conversation(random, longest if owner is not SMALL else 40))
    if random.random() < 0.1:
        stream = stream[: random.randrange(len(stream))]
    owed = due(stream, longest)
    for key, blob in owed.kept:
        shelves.given[owner, model, token, key].add(sha256(blob).digest())
    talk = Talk(stream, random.choices(MANNERS, (90, 4, 3, 3))[0], random.choice(LIVES))
    try:
        async with asyncio.timeout(HANG_SECONDS):
            end, said = await talk.load(Counting(shelves.partitions, owner, model, token))
        table.count(end if talk.manner == MANNERS[0] else f"{talk.manner}: {end}")
        shelves.check(owner, model, token, [*owed.questions, *owed.more], said)
        if talk.manner != MANNERS[0]:
            return
        expected = {"failed": "refused: limit", "violation": "refused: protocol-violation"}
        if owed.end != "any":
            assert end == expected.get(owed.end, owed.end), f"{end} where {owed.end} was due"
        least = len(owed.questions)
        assert least <= len(said) <= least + len(owed.more), f"{len(said)} answers, not {least}"
    except Exception as error:
        table.count("a fault")
        table.find(f"{item}: {type(error).__name__}: {error} after {stream[:200]!r}")


class Talk:
    """What one worker says while it loads its model, and how."""

    def __init__(self, stream: bytes, manner: str = MANNERS[0], lives: float = 0) -> None:
        """`lives`: how many seconds, if it dies in the middle."""
        self.manner = manner
        self._stream = stream
        self._lives = lives
        self._heard = bytearray()
        self._is_loaded = False
        self._over = asyncio.Event()

    async def load(self, exchange: Counting) -> tuple[str, list[bytes]]:
        """Be the worker, and its broker; returns how the load ended, and the blobs that came.

        Raises AssertionError for what may not be.
        """
        taken, known = exchange.taken, weakref.ref(exchange)
        with handle() as (worker, theirs):
            theirs.setblocking(False)
            theirs.send(message(READY, b'{"layers": [], "missing": {}}'))
            tasks = [asyncio.create_task(self._say(theirs))] if self.manner == "too early" else []
            try:
                # As a load does, from here on.
                await worker.begin(GO)
                await worker.end_model()
                worker.exchanges(exchange)
                del exchange
                tasks += self._begin(worker, theirs)
                end = await self._end_of_load(worker)
                if end == "loaded":
                    self._is_loaded = True
                    while known() is not None:  # at once, or once a thread is done with it
                        await asyncio.sleep(0.001)
                self._over.set()
            except Refusal as refusal:
                end = f"refused: {refusal.failure.cause}"
                if refusal.failure.cause is not KILLED.cause:
                    check_failure(refusal.failure, worker)
            finally:
                await worker.end(Failure(Cause.CLOSED, "the test is over"))
                # What the broker has said is in the socket.
                _, late = await asyncio.wait(tasks, timeout=2.0) if tasks else (set(), set())
                for task in late:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        assert len(taken) <= MOST_MESSAGES, f"{len(taken)} messages were taken in"
        assert max(taken, default=0) <= max(TOTALS), f"{max(taken)} bytes were held for workers"
        return end, answers(bytes(self._heard))

    def _begin(self, worker: Worker, theirs: socket.socket) -> list[asyncio.Task[None]]:
        loop = asyncio.get_running_loop()
        tasks = []
        if self.manner != "too early":
            tasks.append(asyncio.create_task(self._say(theirs)))
        if self.manner != "deaf":
            tasks.append(asyncio.create_task(self._hear(theirs)))
        if self.manner == "dies":
            loop.call_later(self._lives, worker.kill, KILLED)
        return tasks

    async def _say(self, theirs: socket.socket) -> None:
        with suppress(OSError):  # the broker may have hung up
            await asyncio.get_running_loop().sock_sendall(theirs, self._stream)
            await asyncio.sleep(STAYS_SECONDS)
            if self._is_loaded:
                await self._over.wait()
            theirs.shutdown(socket.SHUT_WR)

    async def _hear(self, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while piece := await loop.sock_recv(theirs, 1 << 18):
                self._heard += piece

    async def _end_of_load(self, worker: Worker) -> str:
        """Wait for the end of a load as the broker does; returns how it ended. Raises Refusal."""
        try:
            async with asyncio.timeout(DEAF_SECONDS if self.manner == "deaf" else None):
                await read_description(worker)
        except TimeoutError:
            await worker.end(Failure(Cause.TIMEOUT, "the load was too late"))
            return "late"
        worker.serving = True
        return "loaded"


def _in_use() -> int:
    """Bytes of this process, without what the C library only keeps at hand."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes(os.getpid())
