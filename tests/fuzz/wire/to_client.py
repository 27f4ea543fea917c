"""Worker to client: hostile replies into both drivers of the client and into the broker's relay.

What each stream is, is read from CHANNEL.md by `reading`; the caller must get exactly that, within
its deadline: the right answer, the worker's failure, or a typed error, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from math import prod
from random import Random
from time import monotonic
from typing import Any, Protocol

import numpy as np

import model_loader as ml
from loader_service.broker.refusal import Refusal
from loader_service.broker.relay import Relay
from model_loader._answer import Answer
from model_loader._async import AsyncDriver
from model_loader._async_channel import AsyncChannel
from model_loader._blocking import BlockingDriver
from model_loader._blocking_channel import BlockingChannel
from model_loader._effects import Call
from model_loader._model_core import ModelCore
from model_loader._plan import Plan
from model_loader._session import Session
from model_loader._tensor import DTYPES
from model_loader._values import Isolation, Report
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import ModelDescription
from model_loader_wire.exchange import GROWTH
from model_loader_wire.frames import TABLE_LENGTH, BadFrame, Entry
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.strings import unpack_strings
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.reading import Reading, Tensor, read
from tests.fuzz.wire.replies import (
    MOST,
    OUTPUTS,
    SIGNATURES,
    Reply,
    Sender,
    open_descriptors,
    reply_for,
)

DEADLINE = 0.03
"""Seconds for a reply that is not whole and never will be; others have all the time they need."""
LONG = 10.0
HANG_SECONDS = 10.0
"""No call takes so long, whatever comes: a bound against hanging, not a measure."""
LIMITS = replace(DEFAULT_LIMITS, output_bytes=MOST, compute_seconds=LONG, load_seconds=LONG)
VERDICT = Failure(Cause.CRASHED, "it crashed", model_lost=True)
X = np.ones(1, np.float32)
WEIGH_EVERY = 10
"""Inputs between two whose memory is measured: a multiple of no number of roads."""
LOOK_EVERY = 500
"""Inputs between two counts of descriptors."""


class Outcome:
    """How one call ended."""

    def __init__(
        self,
        what: str,
        tensors: list[Tensor] | None = None,
        cause: str = "",
        lost: bool = False,
    ) -> None:
        self.what, self.tensors, self.cause, self.lost = what, tensors, cause, lost

    def __repr__(self) -> str:
        lost = ", the model is lost" if self.lost else ""
        return f"{self.what} {self.cause or self.tensors or ''}{lost}"


def to_client(seed: int, count: int, seconds: float | None = None) -> Table:
    """Give each road of an answer its share of hostile replies."""
    return asyncio.run(_to_client(seed, count, seconds))


async def _to_client(seed: int, count: int, seconds: float | None) -> Table:
    table = Table("Channel, worker to client")
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    began = monotonic()
    null = os.open("/dev/null", os.O_RDONLY)
    before = open_descriptors()
    roads = list(ROADS)
    try:
        for item in numbered(count, seconds):
            random = Random(f"to client {seed} {item}")
            reply = reply_for(random)
            road = roads[item % len(roads)]
            started = monotonic()
            if weighed := item % WEIGH_EVERY == 0:
                tracemalloc.start()
            try:
                got, wrong = await _one(road, reply, null)
            except Exception as error:
                table.count(f"{road}: a fault")
                table.find(f"{road}, {item}: {type(error).__name__}: {error} for {_shown(reply)}")
                continue
            finally:
                if weighed:
                    peak = tracemalloc.get_traced_memory()[1]
                    tracemalloc.stop()
            if weighed and peak > _most_memory(reply):
                table.find(f"{road}, {item}: {peak} bytes of memory for {_shown(reply)}")
            table.count(f"{road}: {got.what}")
            if monotonic() - started > HANG_SECONDS:
                table.find(f"{road}, {item}: took {monotonic() - started:.1f} s: {_shown(reply)}")
            if wrong:
                table.find(f"{road}, {item}: {wrong}: {_shown(reply)}")
            if item % LOOK_EVERY == LOOK_EVERY - 1:
                await _look(table, before, item)
        await _look(table, before, count)
        table.facts["faults of callbacks"] = len(faults)
        for fault in faults:
            table.find(f"a callback failed: {fault}")
    finally:
        os.close(null)
    table.seconds = monotonic() - began
    return table


async def _one(road: str, reply: Reply, null: int) -> tuple[Outcome, str]:
    """Give one reply; returns what the first call gave, and what was wrong, if anything."""
    ours, theirs = socket.socketpair()
    sender = Sender(theirs, reply, null)
    model = ROADS[road](ours, reply)
    try:
        sender.begin()
        expected = _read(reply, 0, 1)
        got = await model.call(_timeout(reply, expected))
        wrong = _wrong(got, expected, reply)
        if not got.lost and not wrong and reply.ending != "endless":
            # What came after the reply is not taken for the next one, unless it is one.
            second = _read(reply, expected.length, 2)
            again = await model.call(_timeout(reply, second))
            wrong = _wrong_second(again, second, reply)
    finally:
        await model.close()
        ours.close()
        await asyncio.to_thread(sender.finish) if reply.pieces else sender.finish()
    return got, wrong


def _read(reply: Reply, place: int, sequence: int) -> Reading:
    outputs = None if reply.is_reset else OUTPUTS[reply.model]
    return read(reply.data[place:], sequence, outputs, MOST)


def _most_memory(reply: Reply) -> int:
    """What a reply may make anybody allocate: what came, some copies, and 1 MiB ahead of it."""
    came = len(reply.data) + (MOST if reply.ending == "endless" else 0)
    return 5 * came + GROWTH + TABLE_LENGTH + (512 << 10)


async def _look(table: Table, before: int, item: int) -> None:
    """Count descriptors; what is closed by the loop is closed at its next turn."""
    for _ in range(100):
        if open_descriptors() <= before:
            return
        gc.collect()
        await asyncio.sleep(0.01)
    table.find(f"{open_descriptors()} descriptors after {item} inputs, {before} before")


def _wrong(got: Outcome, expected: Reading, reply: Reply) -> str:
    """Say what is wrong with an outcome, or nothing."""
    allowed = {
        "answer": {"answer"},
        "done": {"done"},
        "failure": {"failure"},
        "violation": {"violation"},
        "unfinished": {"late"} if reply.ending == "silence" else {"ended"},
    }[expected.what]
    if reply.ending == "endless" and expected.what == "unfinished":
        # What follows may finish it, rightly or not; but it does not go on for ever.
        allowed = {"answer", "failure", "violation", "ended"}
        expected = Reading("endless")
    elif expected.length and (len(reply.data) > expected.length or reply.ending == "endless"):
        # What follows the reply is seen now or at the next call.
        allowed |= {"violation"}
    if reply.ending == "close":
        allowed = allowed | {"ended"} if reply.pieces else {"ended"}
    if got.what not in allowed:
        return f"{got} where {'/'.join(sorted(allowed))} was due"
    if got.lost != (got.what in ("violation", "ended", "late")):
        return f"{got}: lost or not is wrong"
    if got.what == "answer" and expected.what == "answer":
        due = [_as_given(tensor) for tensor in expected.tensors]
        if got.tensors != due:
            return f"answer {got.tensors} where {due} was due"
    if got.what == "failure" and expected.what == "failure" and got.cause != expected.cause:
        return f"failure {got.cause} where {expected.cause} came"
    return ""


def _wrong_second(got: Outcome, expected: Reading, reply: Reply) -> str:
    """Say what is wrong with the second call, which no reply was made for."""
    if expected.what in ("answer", "done", "failure"):
        # The worker knew the call's number beforehand; an idle asyncio channel takes no such.
        return "" if got.what == expected.what or got.lost else f"{got} for a foretold reply"
    if got.what in ("answer", "done", "failure") or not got.lost:
        return f"{got} at the second call"
    if got.what == "late" and reply.ending != "silence":
        return "a late end at the second call"
    return ""


def _core(reply: Reply, channel: Any) -> ModelCore:
    """Make a model whose worker is at the other end of a channel, and no service behind it."""
    session = Session(pb.Session(token=b"none"), "unix:/nowhere", None, None)
    session.attach = object()  # type: ignore[assignment]  # "not relayed"; never used
    report = Report("none", "builtin", "", 1, "0" * 64, 1, 0.0, LIMITS)
    description = ModelDescription((SIGNATURES[reply.model],), "none", "builtin")
    core = ModelCore(session, "fuzzed", description, Isolation(()), report, "")
    core.channel = channel
    return core


def _judge(effect: Call) -> Any:
    """Answer for the broker: every worker that ended crashed."""
    if effect.method == "GetModel":
        detail = pb.ErrorDetail(cause=VERDICT.cause.value, message=VERDICT.message)
        return pb.ModelState(model_id="fuzzed", lost=True, detail=detail)
    return pb.CloseModelReply()


async def _judge_later(effect: Call) -> Any:
    return _judge(effect)


class Road(Protocol):
    """A model whose worker sends hostile replies, on one of the roads that answers take."""

    def __init__(self, ours: socket.socket, reply: Reply) -> None:
        """Take over the client's end of the channel."""

    async def call(self, timeout: float) -> Outcome:
        """Call the model once."""

    async def close(self) -> None:
        """End it."""


class BlockingRoad:
    """The blocking client."""

    def __init__(self, ours: socket.socket, reply: Reply) -> None:
        driver = BlockingDriver()
        driver._carry_out[Call] = _judge
        self._reply = reply
        self._core = _core(reply, BlockingChannel(ours))
        self._model = ml.MLModel(driver, self._core)

    async def call(self, timeout: float) -> Outcome:
        """Call the model once."""
        try:
            if self._reply.is_reset:
                self._model.reset(timeout=timeout)
                return Outcome("done", lost=self._core.lost is not None)
            answer = self._model.compute({"x": X}, timeout=timeout)
        except ml.ModelLoaderError as error:
            return _failed(error, self._core)
        return Outcome("answer", _tensors(self._reply, answer), lost=self._core.lost is not None)

    async def close(self) -> None:
        """End it."""
        self._model.close()


class AsyncioRoad:
    """The client on an event loop."""

    def __init__(self, ours: socket.socket, reply: Reply) -> None:
        driver = AsyncDriver()
        driver._carry_out[Call] = _judge_later
        self._reply = reply
        self._core = _core(reply, None)
        self._core.channel = AsyncChannel(asyncio.get_running_loop(), ours, self._core.noticed_end)
        self._model = ml.aio.MLModel(driver, self._core)

    async def call(self, timeout: float) -> Outcome:
        """Call the model once."""
        try:
            if self._reply.is_reset:
                await self._model.reset(timeout=timeout)
                return Outcome("done", lost=self._core.lost is not None)
            answer = await self._model.compute({"x": X}, timeout=timeout)
        except ml.ModelLoaderError as error:
            return _failed(error, self._core)
        return Outcome("answer", _tensors(self._reply, answer), lost=self._core.lost is not None)

    async def close(self) -> None:
        """End it."""
        await self._model.close()


class StandIn:
    """A worker as the relay sees it: one that ends when it is told to, or when it hung up."""

    def __init__(self) -> None:
        self.lost: Failure | None = None
        self._calls: list[Callable[[Any], None]] = []

    def when_ended(self, call: Callable[[Any], None]) -> None:
        """Call back at the end."""
        self._calls.append(call)

    async def wait(self, seconds: float) -> Failure:
        """Be dead: it crashed."""
        return await self.end(VERDICT)

    async def end(self, reason: Failure) -> Failure:
        """End; the first reason stays."""
        if self.lost is None:
            self.lost = replace(reason, model_lost=True)
            for call in self._calls:
                call(self)
        return self.lost


class RelayRoad:
    """The broker's relay, and behind it what a relayed client checks."""

    def __init__(self, ours: socket.socket, reply: Reply) -> None:
        self._reply = reply
        self._worker = StandIn()
        self._relay = Relay(
            ours,
            self._worker,  # type: ignore[arg-type]  # all of it that a relay uses
            ModelDescription((SIGNATURES[reply.model],), "none", "builtin"),
            LIMITS,
        )

    async def call(self, timeout: float) -> Outcome:
        """Call the model once."""
        worker = self._worker
        self._relay._limits = replace(LIMITS, compute_seconds=timeout)
        try:
            if self._reply.is_reset:
                await self._relay.reset()
                return Outcome("done", lost=worker.lost is not None)
            entry = Entry(DataType.FLOAT32, (1,), 4)
            answer = await self._relay.compute(0, [entry], [X.tobytes()])
        except Refusal as refusal:
            cause = refusal.failure.cause
            if worker.lost is None:
                return Outcome("failure", cause=cause.value)
            return Outcome(ENDINGS[cause], lost=True)
        taken = Answer(Plan(0, SIGNATURES[self._reply.model], LIMITS), False)
        try:
            taken.places(answer.entries)
            arrays = taken.result(answer.entries, answer.tensors)
        except BadFrame:
            return Outcome("violation", lost=True)
        return Outcome("answer", _tensors(self._reply, arrays), lost=worker.lost is not None)

    async def close(self) -> None:
        """End it."""
        await self._worker.end(VERDICT)


ROADS: dict[str, type[Road]] = {
    "blocking": BlockingRoad,
    "asyncio": AsyncioRoad,
    "relay": RelayRoad,
}
ENDINGS = {
    Cause.PROTOCOL_VIOLATION: "violation",
    Cause.CRASHED: "ended",
    Cause.LOST: "ended",
    Cause.TIMEOUT: "late",
}
"""What the cause of a loss says of the stream."""


def _timeout(reply: Reply, expected: Reading) -> float:
    silent = reply.ending == "silence" and expected.what == "unfinished"
    return DEADLINE if silent else LONG


def _tensors(reply: Reply, answer: dict[str, np.ndarray[Any, Any]]) -> list[Tensor]:
    tensors = []
    for output in OUTPUTS[reply.model]:
        array = answer[output.name]
        assert array.dtype == DTYPES[output.data_type]
        assert array.flags.writeable
        tensors.append(_as_tensor(output.data_type, array))
    return tensors


def _as_tensor(data_type: DataType, array: np.ndarray[Any, Any]) -> Tensor:
    if data_type is DataType.STRING:
        return Tensor(int(data_type), array.shape, repr(array.ravel().tolist()).encode())
    return Tensor(int(data_type), array.shape, array.tobytes())


def _as_given(tensor: Tensor) -> Tensor:
    """A tensor of the stream as the caller is given it: raw bytes are flat, strings a list."""
    if tensor.code == DataType.UNKNOWN:
        return tensor._replace(dimensions=(len(tensor.data),))
    if tensor.code == DataType.STRING:
        texts = unpack_strings(tensor.data, prod(tensor.dimensions))
        return tensor._replace(data=repr(texts).encode())
    return tensor


def _failed(error: ml.ModelLoaderError, core: ModelCore) -> Outcome:
    lost = core.lost is not None
    if error.cause in ENDINGS:
        return Outcome(ENDINGS[error.cause], lost=lost)
    return Outcome("failure", cause=error.cause.value, lost=lost)


def _shown(reply: Reply) -> str:
    how = f"{reply.model}{' reset' if reply.is_reset else ''} pieces {reply.pieces}"
    return f"{how} {reply.ending} {reply.descriptors} {len(reply.data)}: {reply.data[:200].hex()}"
