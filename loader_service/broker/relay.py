"""Speaking the channel for clients that cannot take a descriptor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import ModelDescription
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import BadFrame, Entry, Kind, pack_table
from model_loader_wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Answer:
    """What a relayed computation gave."""

    entries: tuple[Entry, ...]
    tensors: tuple[bytes, ...]
    queue_ns: int
    compute_ns: int


class Relay:
    """The client's end of one model's channel, held by the broker."""

    def __init__(
        self, channel: socket.socket, worker: Worker, description: ModelDescription, limits: Limits
    ) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._worker = worker
        self._description = description
        self._limits = limits
        self._sequence = 0
        self._lock = asyncio.Lock()

    async def compute(
        self, signature: int, entries: Sequence[Entry], tensors: Sequence[bytes]
    ) -> Answer:
        """Run one computation; raises Refusal."""
        self._check(signature, entries, tensors)
        # An exchange that has begun goes on to its end, so that a caller who leaves does not
        # leave half a message behind.
        exchange = await asyncio.shield(
            asyncio.ensure_future(
                self._exchange(
                    Kind.COMPUTE,
                    signature=signature,
                    table=pack_table(entries),
                    payload=tensors,
                )
            )
        )
        assert exchange.header is not None
        return Answer(
            exchange.entries,
            tuple(bytes(tensor) for tensor in exchange.tensors),
            exchange.header.queue_ns,
            exchange.header.compute_ns,
        )

    async def reset(self) -> None:
        """Put the model's state back to the first one; raises Refusal."""
        await asyncio.shield(asyncio.ensure_future(self._exchange(Kind.RESET)))

    def _check(self, signature: int, entries: Sequence[Entry], tensors: Sequence[bytes]) -> None:
        if signature >= len(self._description.signatures):
            raise refuse(Cause.INVALID_INPUT, f"there is no signature {signature}")
        declared = self._description.signatures[signature].inputs
        if len(entries) != len(declared):
            raise refuse(
                Cause.INVALID_INPUT, f"{len(entries)} inputs came, {len(declared)} are needed"
            )
        for entry, data, tensor in zip(entries, tensors, declared, strict=True):
            if entry.data_type is not tensor.data_type or not tensor.accepts(entry.dimensions):
                raise refuse(
                    Cause.INVALID_INPUT,
                    f"input {tensor.name!r} is {tensor.data_type.api_name} "
                    f"{tensor.dimensions}, not {entry.data_type.api_name} {entry.dimensions}",
                )
            if tensor.byte_length is not None and len(data) != tensor.byte_length:
                raise refuse(
                    Cause.INVALID_INPUT,
                    f"input {tensor.name!r} has {len(data)} bytes, expected {tensor.byte_length}",
                )

    async def _exchange(
        self,
        kind: Kind,
        *,
        signature: int = 0,
        table: bytes = b"",
        payload: Sequence[bytes] = (),
    ) -> Exchange:
        async with self._lock:
            self._sequence += 1
            exchange = Exchange(
                kind,
                self._sequence,
                signature=signature,
                table=table,
                payload=payload,
                most=self._limits.output_bytes or 0,
            )
            seconds = self._limits.compute_seconds
            try:
                async with asyncio.timeout(seconds):
                    await self._drive(exchange)
            except TimeoutError:
                reason = Failure(
                    Cause.TIMEOUT,
                    f"the computation took longer than compute_seconds = {seconds:g}",
                    "compute_seconds",
                    seconds or 0,
                    seconds or 0,
                )
                self._worker.kill(reason)
                raise Refusal(await self._worker.ended) from None
            except BadFrame as error:
                self._worker.kill(Failure(Cause.PROTOCOL_VIOLATION, str(error)))
                raise Refusal(await self._worker.ended) from None
            except ConnectionError:
                raise Refusal(await self._worker.ended) from None
        if exchange.failure is not None:
            raise Refusal(exchange.failure)
        return exchange

    async def _drive(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        parts = list(exchange.outgoing)
        for part in parts:
            await loop.sock_sendall(self._channel, part)
            exchange.sent(len(part))
        while not exchange.done:
            count = await loop.sock_recv_into(self._channel, exchange.space())
            if count == 0:
                raise ConnectionResetError("the worker has gone")
            exchange.received(count)

    def close(self) -> None:
        """Close the channel: the worker ends."""
        self._channel.close()
