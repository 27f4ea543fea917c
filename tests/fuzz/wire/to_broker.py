"""Worker to broker: hostile messages on the control socket, into the broker's handle of a worker.

Behind the handle is a real process, which does nothing: the test holds its end of the control
socket. Whatever comes is either what the contract allows, and can be handed on to a client
unchanged, or a typed refusal; and a worker that broke the protocol is dead.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic
from typing import Any

from loader_service.broker.last_words import LastWords
from loader_service.broker.messages import description_to_message, failure_to_message
from loader_service.broker.refusal import Refusal
from loader_service.broker.reports import SUMMARY_BYTES, read_description, read_summary
from loader_service.broker.rows import isolation_to_message
from loader_service.broker.worker import Worker
from loader_service.worker.control import PONG, Message, pack
from model_loader._messages import description_from, isolation_from
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import model_to_values
from model_loader_wire.frames import pack_failure
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import damaged, json_bytes, number
from tests.fuzz.wire.replies import open_descriptors
from tests.fuzz.wire.targets import MODEL
from tests.support.fake_worker import GO

HANG_SECONDS = 60.0
VERDICT_SECONDS = 20.0
TOGETHER = 60
"""Workers at a time."""
IDLE = "/bin/sleep"
REFUSALS = frozenset(
    {
        *(Cause.INVALID_INPUT, Cause.INVALID_MODEL, Cause.UNSUPPORTED, Cause.LIMIT),
        *(Cause.OUT_OF_MEMORY, Cause.FAILED, Cause.INTERNAL, Cause.PROTOCOL_VIOLATION),
    }
)
"""What may come of a worker's words alone: never what only the kernel or the broker can know."""
READY: dict[str, object] = {
    "layers": ["seccomp", "no-new-privileges"],
    "missing": {"landlock": "not supported by this kernel"},
}
SUMMARY: dict[str, object] = {
    "schema": 3,
    "operators": [{"name": "ADD", "count": 2}],
    "tensors": [{"name": "x", "dimensions": [1, -1], "type": "float32"}],
}
FAILURE = json.loads(pack_failure(Failure(Cause.LIMIT, "too much", "memory_bytes", 2, 1)))


def _message(kind: Message, random: Random) -> bytes:
    """Build a message of that kind, true or not."""
    fields = {
        Message.READY: READY,
        Message.LOADED: model_to_values(MODEL),
        Message.INSPECTED: {"summary": json.dumps(SUMMARY)},
        Message.FAILED: FAILURE,
    }.get(kind)
    if fields is None:
        pong = PONG.pack(random.choice((0, 1, 1, number(random))), number(random))
        return pack(kind, damaged(pong, random) if random.random() < 0.3 else pong)
    if kind is Message.INSPECTED and random.random() < 0.5:
        text = json_bytes(SUMMARY, random).decode("utf-8", "replace")
        return pack(kind, json.dumps({"summary": text}).encode())
    true = random.random() < 0.4
    return pack(kind, json.dumps(fields).encode() if true else json_bytes(fields, random))


def conversation(is_inspection: bool, random: Random) -> list[bytes]:
    """What a worker says from its start on: the right messages in their order, or others."""
    told = [Message.INSPECTED, Message.LOADED] if is_inspection else [Message.LOADED]
    kinds = [Message.READY, *told]
    chance = random.random()
    if chance < 0.15:
        kinds[random.randrange(len(kinds)) :] = [Message.FAILED]
    elif chance < 0.3:
        kinds.insert(random.randrange(4), random.choice([*Message]))
    elif chance < 0.35:
        random.shuffle(kinds)
    elif chance < 0.38:
        kinds += [random.choice(kinds)] * 20
    kinds += [Message.PONG] * random.choice((0, 0, 0, 1, 2, 200))
    messages = [_message(kind, random) for kind in kinds]
    if random.random() < 0.3:
        place = random.randrange(len(messages))
        messages[place] = damaged(messages[place], random)
    if random.random() < 0.03:
        messages.insert(0, random.randbytes(100))
    return messages


def to_broker(seed: int, count: int, seconds: float | None = None) -> Table:
    """Let so many workers talk."""
    return asyncio.run(_to_broker(seed, count, seconds))


async def _to_broker(seed: int, count: int, seconds: float | None) -> Table:
    table = Table("Control socket, worker to broker")
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    began = monotonic()
    before = open_descriptors()
    tasks = len(asyncio.all_tasks())
    batch: list[int] = []
    for item in numbered(count, seconds):
        batch.append(item)
        if len(batch) == TOGETHER:
            await asyncio.gather(*(_one(table, seed, number) for number in batch))
            batch.clear()
            await see_nothing_left(table, before, tasks, item)
    await asyncio.gather(*(_one(table, seed, number) for number in batch))
    await see_nothing_left(table, before, tasks, count)
    table.facts["faults of callbacks"] = len(faults)
    for fault in faults:
        table.find(f"a callback failed: {fault}")
    table.seconds = monotonic() - began
    return table


async def _one(table: Table, seed: int, item: int) -> None:
    random = Random(f"to broker {seed} {item}")
    is_inspection = random.random() < 0.3
    words = conversation(is_inspection, random)
    try:
        async with asyncio.timeout(HANG_SECONDS):
            table.count(await _hear(words, is_inspection, random))
    except Exception as error:
        table.count("a fault")
        said = b"".join(words)[:300]
        table.find(f"{item}: {type(error).__name__}: {error} after {said!r}")


async def see_nothing_left(table: Table, before: int, tasks: int, item: int) -> None:
    """Wait until there are no more descriptors and tasks than before; else that is a finding."""
    for _ in range(200):
        if open_descriptors() <= before and len(asyncio.all_tasks()) <= tasks:
            return
        gc.collect()
        await asyncio.sleep(0.01)
    table.find(
        f"after {item} inputs {open_descriptors()} descriptors and {len(asyncio.all_tasks())} "
        f"tasks, {before} and {tasks} before"
    )


def _nobody(worker: Worker) -> None:
    """Nobody is told of the end."""


@contextmanager
def handle() -> Iterator[tuple[Worker, socket.socket]]:
    """Give a worker's handle, and the worker's end of its control socket."""
    ours, theirs = socket.socketpair()
    client, channel = socket.socketpair()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with theirs, channel:
        pid = os.posix_spawn(IDLE, [IDLE, "1000"], {})
        os.close(writing)
        ours.setblocking(False)
        last_words = LastWords(reading)
        worker = Worker(
            pid, ours, client, last_words, None, DEFAULT_LIMITS, _nobody, VERDICT_SECONDS
        )
        yield worker, theirs


async def _hear(words: list[bytes], is_inspection: bool, random: Random) -> str:
    """Let one worker talk; returns what came of it. Raises AssertionError for what may not be."""
    with handle() as (worker, theirs):
        try:
            theirs.setblocking(False)
            said = asyncio.create_task(_say(theirs, words, random.random() < 0.1))
            try:
                outcome = await _begin(worker, is_inspection)
                await said
                return await _serve(worker, theirs, outcome)
            except Refusal as refusal:
                check_failure(refusal.failure, worker)
                return f"refused: {refusal.failure.cause}"
            finally:
                said.cancel()
                await asyncio.gather(said, return_exceptions=True)
        finally:
            await worker.end(Failure(Cause.CLOSED, "the test is over"))
            assert worker.lost is not None


async def _say(theirs: socket.socket, words: list[bytes], slowly: bool) -> None:
    loop = asyncio.get_running_loop()
    data = b"".join(words)
    try:
        if slowly and len(data) < 5000:
            for place in range(0, len(data), 7):
                await loop.sock_sendall(theirs, data[place : place + 7])
        else:
            await loop.sock_sendall(theirs, data)
        theirs.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the broker has hung up, as it should


async def _begin(worker: Worker, is_inspection: bool) -> str:
    """Do what the broker does at a load; what was accepted must reach a client as it is."""
    await worker.begin(GO)
    message = isolation_to_message(worker, "rlimit-data")
    isolation = isolation_from(pb.Isolation.FromString(message.SerializeToString()))
    assert isolation.layers == worker.layers
    if is_inspection:
        summary = await read_summary(worker)
        assert len(summary.encode()) <= SUMMARY_BYTES
        assert pb.InspectReply.FromString(pb.InspectReply(summary=summary).SerializeToString())
        found = json.loads(summary)
        if found["failure"] is not None:
            assert Cause(found["failure"]["cause"]) in REFUSALS
        return "inspected"
    description = await read_description(worker)
    told = description_to_message(description).SerializeToString()
    assert description_from(pb.Description.FromString(told)) == description
    return "loaded"


async def _serve(worker: Worker, theirs: socket.socket, outcome: str) -> str:
    """Ping the worker, as if it served; what it said too much ends it."""
    worker.serving = True
    worker.ping()
    # Its socket has ended, so that it dies for one reason or another.
    lost = await worker.wait(HANG_SECONDS)
    assert lost is not None
    assert lost.cause is Cause.PROTOCOL_VIOLATION, lost
    ended = "its socket ended" if "closed its control" in lost.message else "for its messages"
    return f"{outcome}, then killed: {ended}"


def check_failure(failure: Failure, worker: Worker) -> None:
    """A failure is one of the worker's own, and can be handed on and shown on a terminal.

    Raises AssertionError.
    """
    assert failure.cause in REFUSALS, failure
    if failure.model_lost:
        assert failure.cause is Cause.PROTOCOL_VIOLATION
        assert worker.lost is not None
        assert worker.lost.cause is Cause.PROTOCOL_VIOLATION
    assert pb.ErrorDetail.FromString(failure_to_message(failure).SerializeToString())
    shown = failure.message + failure.limit + failure.last_words
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown), shown
