"""Speaking the channel for clients that cannot take a descriptor."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from loader_service.broker.control import CLOSING_SECONDS, WORKER_MAY_SAY
from loader_service.broker.parkable import Home
from loader_service.broker.refusal import Refusal, over_limit, refuse
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import RANK, ModelDescription
from model_loader_wire.exchange import Exchange, Places
from model_loader_wire.frames import TABLE_LENGTH, BadFrame, Entry, Kind, pack_table
from model_loader_wire.limits import Limits


@dataclass(slots=True)
class CallTimes:
    """When what happened of one exchange, by the broker's clock (`time.monotonic`)."""

    asked: float
    began: float = 0.0
    """Its turn has come."""
    sent: float = 0.0
    first: float = 0.0
    """The first byte of the answer was there."""
    done: float = 0.0

    def phases(self, compute_ns: int) -> Phases:
        """Take the time apart; the worker's word on its computation counts as far as it can be."""
        away = self.first - self.sent
        compute = min(compute_ns / 1e9, away)
        waiting = self.began - self.asked + away - compute
        return Phases(self.sent - self.began, waiting, compute, self.done - self.first)


@dataclass(frozen=True, slots=True)
class Phases:
    """Where the seconds of one relayed call went; together they are all of it."""

    send: float
    queue: float
    """Waiting for the calls before it, and for the worker."""
    compute: float
    """By the worker's own word."""
    reply: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a relayed computation gave."""

    entries: tuple[Entry, ...]
    tensors: tuple[bytes, ...]
    queue_ns: int
    compute_ns: int
    """Both by the worker's own word."""
    times: CallTimes


class Relay:
    """The client's end of one model's channel, held by the broker."""

    def __init__(
        self, channel: socket.socket, worker: Home, description: ModelDescription, limits: Limits
    ) -> None:
        """Take over the channel; it is closed when the worker has ended."""
        channel.setblocking(False)
        self._channel = channel
        self._worker = worker
        self._description = description
        self._limits = limits
        self._sequence = itertools.count(1)
        self._lock = asyncio.Lock()
        worker.when_ended(lambda _: self._close_if_unused())

    async def compute(
        self, signature: int, entries: Sequence[Entry], tensors: Sequence[bytes]
    ) -> Answer:
        """Run one computation; raises Refusal."""
        table = self._check(signature, entries, tensors)
        exchange = Exchange(
            Kind.COMPUTE,
            next(self._sequence),
            signature=signature,
            table=table,
            payload=tensors,
            places=self._checked_against(signature),
            most=self._limits.output_bytes or 0,
        )
        times = CallTimes(monotonic())
        await self._in_turn(exchange, times)
        assert exchange.header is not None
        return Answer(
            exchange.entries,
            tuple(bytes(tensor) for tensor in exchange.tensors),
            exchange.header.queue_ns,
            exchange.header.compute_ns,
            times,
        )

    async def reset(self) -> None:
        """Put the model's state back to the first one; raises Refusal."""
        await self._in_turn(Exchange(Kind.RESET, next(self._sequence)), CallTimes(monotonic()))

    def _check(self, signature: int, entries: Sequence[Entry], tensors: Sequence[bytes]) -> bytes:
        """Check a request against the declaration and pack its table; raises Refusal."""
        if signature >= len(self._description.signatures):
            raise refuse(Cause.INVALID_INPUT, f"there is no signature {signature}")
        declared = self._description.signatures[signature].inputs
        if len(entries) != len(declared):
            raise refuse(
                Cause.INVALID_INPUT, f"{len(entries)} inputs came, {len(declared)} are needed"
            )
        for entry, data, tensor in zip(entries, tensors, declared, strict=True):
            fits = len(entry.dimensions) <= RANK and tensor.accepts(entry.dimensions)
            if entry.data_type is not tensor.data_type or not fits:
                raise refuse(
                    Cause.INVALID_INPUT,
                    f"input {tensor.name!r} is {tensor.data_type.api_name} {tensor.dimensions}, "
                    f"not {entry.data_type.api_name} {entry.dimensions[:RANK]}",
                )
            if tensor.byte_length is not None and len(data) != tensor.byte_length:
                raise refuse(
                    Cause.INVALID_INPUT,
                    f"input {tensor.name!r} has {len(data)} bytes, expected {tensor.byte_length}",
                )
        total, most = sum(len(data) for data in tensors), self._limits.tensor_bytes or 0
        if total > most:
            raise over_limit("tensor_bytes", total, most, "the inputs are too large")
        table = pack_table(entries)
        if len(table) > TABLE_LENGTH:
            raise refuse(Cause.INVALID_INPUT, "the inputs have too many dimensions for one call")
        return table

    def _checked_against(self, signature: int) -> Places:
        """Return the check of an answer's table against the declaration."""
        declared = self._description.signatures[signature].outputs

        def check(answer: tuple[Entry, ...]) -> None:
            if len(answer) != len(declared) or not all(
                entry.data_type is tensor.data_type and tensor.accepts(entry.dimensions)
                for entry, tensor in zip(answer, declared, strict=True)
            ):
                raise BadFrame("the worker's answer is not what the model declared")

        return check

    async def _in_turn(self, exchange: Exchange, times: CallTimes) -> None:
        """Drive an exchange when those before it are done; raises Refusal.

        One that has begun goes on to its end even if the caller leaves, so that no half message
        stays behind; one that still waits for its turn is forgotten.
        """
        await self._lock.acquire()
        driving = asyncio.create_task(self._drive_and_release(exchange, times))
        failure = await asyncio.shield(driving)
        if failure is not None:
            raise Refusal(failure)

    async def _drive_and_release(self, exchange: Exchange, times: CallTimes) -> Failure | None:
        """Drive an exchange to its end; returns how it failed. Nobody may be there to be told."""
        seconds = self._limits.compute_seconds or 0
        try:
            if self._worker.lost is not None:
                return Failure(Cause.LOST, f"the model was lost: {self._worker.lost.message}")
            async with asyncio.timeout(seconds):
                await self._drive(exchange, times)
            failure = exchange.failure
            if failure is not None and failure.cause not in WORKER_MAY_SAY:
                raise BadFrame(f"a worker cannot know of {failure.cause}")
            return failure
        except TimeoutError:
            message = f"the computation took longer than compute_seconds = {seconds:g}"
            late = Failure(Cause.TIMEOUT, message, "compute_seconds", seconds, seconds)
            return await self._worker.end(late)
        except BadFrame as error:
            return await self._worker.end(Failure(Cause.PROTOCOL_VIOLATION, str(error)))
        except ConnectionError:
            # A worker that has lost its channel is ending; one that lives on does so on purpose.
            await self._worker.wait(CLOSING_SECONDS)
            closed = Failure(Cause.PROTOCOL_VIOLATION, "the worker closed its channel")
            return await self._worker.end(closed)
        finally:
            self._lock.release()
            if self._worker.lost is not None:
                self._close_if_unused()

    async def _drive(self, exchange: Exchange, times: CallTimes) -> None:
        loop = asyncio.get_running_loop()
        times.began = monotonic()
        for part in list(exchange.outgoing):
            await loop.sock_sendall(self._channel, part)
            exchange.sent(len(part))
        times.sent = monotonic()
        while not exchange.done:
            count = await loop.sock_recv_into(self._channel, exchange.space())
            if count == 0:
                raise ConnectionResetError("the worker has gone")
            times.first = times.first or monotonic()
            exchange.received(count)
        times.done = monotonic()

    def _close_if_unused(self) -> None:
        # An exchange under way reads the channel's end by itself, and then closes it.
        if not self._lock.locked():
            self._channel.close()
