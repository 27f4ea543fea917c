"""Client to worker: hostile requests to real sandboxed workers, on the channel itself.

Each request gets what `asking` says is due: the right answer, a typed failure, or the end of the
channel, of which the broker knows the reason. A healthy model of the same service notices nothing.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from contextlib import suppress
from random import Random
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np

from model_loader_wire.causes import Cause
from model_loader_wire.frames import Entry
from model_loader_wire.strings import unpack_strings
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.asking import (
    COMPUTE,
    MODELS,
    RESET,
    TENSOR_BYTES,
    Asked,
    Due,
    Owed,
    owed,
    true_inputs,
)
from tests.fuzz.wire.damage import number
from tests.fuzz.wire.drafts import Draft, mutated
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.reading import ANSWER, CAUSES, DONE, FAILURE, STRING
from tests.support.raw_client import HANG_SECONDS, RawSession

LOOK_EVERY = 100
FILLED_UP = 300_000
"""A request that lacks no more bytes than these is mostly filled up with others."""
LIMITS: dict[str, float] = {"tensor_bytes": TENSOR_BYTES, "compute_seconds": 5}


class Ended(Exception):
    """The worker hung up."""


class Channel:
    """A model, and its client's end of the channel."""

    def __init__(self, session: RawSession, name: str) -> None:
        self.asked = MODELS[name]
        self._session = session
        reply = session.load(self.asked.content)
        assert [*self.asked.signatures] == [*range(len(reply.description.signatures))]
        self.model_id = reply.model_id
        self.socket = session.channel(reply.model_id)

    def take(self, length: int) -> bytes:
        """Read exactly so many bytes; raises Ended."""
        data = b""
        while len(data) < length:
            try:
                piece = self.socket.recv(length - len(data))
            except ConnectionError:
                raise Ended from None
            if not piece:
                raise Ended
            data += piece
        return data

    def verdict(self) -> pb.ErrorDetail:
        """Ask the broker why the worker ended; it must have."""
        request = pb.GetModelRequest(model_id=self.model_id, wait_seconds=HANG_SECONDS)
        state: pb.ModelState = self._session.call("GetModel", request)
        assert state.lost, "the worker lives on"
        return state.detail


def to_worker(seed: int, count: int, seconds: float | None = None) -> Table:
    """Send so many requests."""
    table = Table("Channel, client to worker")
    began = monotonic()
    ends: Counter[str] = Counter()
    loads = 0
    with Healthy(table, LIMITS, crash_loop_deaths=10**6) as healthy:
        with RawSession(healthy.service.directory, "fuzz") as session:
            healthy.begin()
            open_channels: dict[str, Channel] = {}
            for item in numbered(count, seconds):
                random = Random(f"to worker {seed} {item}")
                name = random.choice(list(MODELS))
                if name not in open_channels:
                    open_channels[name] = Channel(session, name)
                    loads += 1
                channel = open_channels[name]
                data = _stream(channel.asked, random)
                try:
                    outcome, ended = _one(channel, data, random)
                except Exception as error:
                    outcome, ended = "a fault", "a fault"
                    shown = f"{name} {len(data)}: {data[:300].hex()}"
                    table.find(f"{item}: {type(error).__name__}: {error} for {shown}")
                table.count(outcome)
                if ended:
                    ends[ended] += 1
                    open_channels.pop(name).socket.close()
                if item % LOOK_EVERY == 0:
                    healthy.look(f"request {item}")
            for channel in open_channels.values():
                channel.socket.close()
        healthy.settle([])
    table.facts["workers"] = loads
    table.facts |= {f"workers ended: {reason}": number for reason, number in ends.items()}
    table.seconds = monotonic() - began
    return table


def _stream(asked: Asked, random: Random) -> bytes:
    """Make the next request, or a flood of them."""
    drafts = []
    for _ in range(random.choice((1,) * 30 + (2, 5, 40))):
        if random.random() < 0.08:
            drafts.append(Draft(RESET, number(random)))
            continue
        signature = random.choice(list(asked.signatures))
        inputs = true_inputs(asked, signature, random)
        entries = [
            Entry(code, sizes, len(data))  # type: ignore[arg-type]  # a code is as good
            for (code, sizes), data in inputs
        ]
        draft = Draft.of(COMPUTE, number(random), entries, b"".join(data for _, data in inputs))
        draft.signature = signature
        drafts.append(draft)
    frames = [draft.pack() for draft in drafts]
    if random.random() < 0.85:
        frames[-1] = mutated(drafts[-1], random)
    return b"".join(frames)[: 4 * TENSOR_BYTES]


def _one(channel: Channel, data: bytes, random: Random) -> tuple[str, str]:
    """Send a stream and see what comes; returns the outcome, and how the worker ended if it did."""
    due = owed(channel.asked, data)
    while 0 < due.missing <= FILLED_UP and random.random() < 0.9:
        data += random.randbytes(due.missing)
        due = owed(channel.asked, data)
    thread = _send(channel.socket, data, random)
    for reply in due.replies:
        _check(reply, channel)
    thread.join()
    last = due.replies[-1].what if due.replies else "nothing"
    if due.ends:
        with suppress(Ended):
            assert not channel.take(1), "bytes came for what is no request"
        return "the channel ended: no request", _reason(channel, due)
    if due.missing:
        # Half a request, and then nothing: the worker waits, and the end of the channel ends it.
        time.sleep(0.002)
        channel.socket.close()
        return "half a request, then the end", _reason(channel, due)
    if any(reply.what == "any" for reply in due.replies):
        last = "answer or failure"
    return f"{last}, {len(due.replies)} due" if len(due.replies) > 1 else last, ""


def _send(channel: socket.socket, data: bytes, random: Random) -> Thread:
    """Send it all, while the replies are read: one who reads none is not read either."""
    step = len(data)
    if random.random() < 0.1 and len(data) < 3000:
        step = random.choice((1, 7, 47, 48, 49))

    def send() -> None:
        # A worker that has hung up does not read the rest.
        with suppress(ConnectionError):
            for place in range(0, len(data), max(1, step)):
                channel.sendall(data[place : place + step])

    thread = Thread(target=send)
    thread.start()
    return thread


def _reason(channel: Channel, due: Owed) -> str:
    """See that the broker knows why the worker ended, and that this was its own will."""
    detail = channel.verdict()
    cause = Cause(detail.cause)
    if due.ends:
        assert "what is no request" in detail.last_words, f"{cause}: {detail.last_words!r}"
        assert "Traceback" not in detail.last_words, detail.last_words
        return f"{cause}, what it read is no request"
    assert cause is Cause.CLOSED, f"{cause}: {detail.message} {detail.last_words}"
    return f"{cause}, the client hung up"


def _check(due: Due, channel: Channel) -> None:
    """Read one reply and hold it against what is due; raises AssertionError."""
    try:
        head = channel.take(48)
        read = Draft(0, 0)
        magic, read.kind, read.zero = head[:4], head[4], head[5]
        read.sequence = int.from_bytes(head[8:16], "little")
        payload_length = int.from_bytes(head[16:24], "little")
        table_length = int.from_bytes(head[40:44], "little")
        count = int.from_bytes(head[44:46], "little")
        assert magic == b"MLC1"
        assert not read.zero
        assert read.sequence == due.sequence, "another call's number"
        table = channel.take(table_length)
        payload = channel.take(payload_length)
    except Ended:
        detail = channel.verdict()
        raise AssertionError(
            f"{due.what} was due, but the worker ended: {detail.cause} {detail.message} "
            f"{detail.last_words[-500:]}"
        ) from None
    if read.kind == FAILURE:
        assert due.what in ("failure", "any"), f"{due.what} was due, but it said {payload[:300]!r}"
        report = json.loads(payload)
        assert report["cause"] in CAUSES - {"internal"}, report
        assert not table_length
        return
    kind = {"answer": ANSWER, "any": ANSWER, "done": DONE}.get(due.what)
    assert read.kind == kind, f"{due.what} was due, but a frame of kind {read.kind} came"
    if due.what == "answer":
        _check_answer(due.answer, count, table, payload)


def _check_answer(due: list[Any], count: int, table: bytes, payload: bytes) -> None:
    assert count == len(due)
    place = 0
    for expected in due:
        code, rank = table[place], table[place + 1]
        length = int.from_bytes(table[place + 8 : place + 16], "little")
        sizes = tuple(np.frombuffer(table[place + 16 : place + 16 + 8 * rank], "<i8").tolist())
        place += 16 + 8 * rank
        data, payload = payload[:length], payload[length:]
        assert sizes == expected.shape, f"dimensions {sizes}, due were {expected.shape}"
        if code == STRING:
            assert unpack_strings(data, expected.size) == expected.ravel().tolist()
        else:
            came = np.frombuffer(data, expected.dtype).reshape(sizes)
            assert np.allclose(came, expected, rtol=1e-6, atol=1e-30, equal_nan=True), (
                f"{came} where {expected} was due"
            )
    assert place == len(table)
    assert not payload
