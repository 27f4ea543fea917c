"""One model's place in a host: to the rest of the broker what a worker of its own would be."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from loader_service.broker.control import broken, failure_reported
from loader_service.broker.meter import Usage
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.mortal import Mortal
from loader_service.broker.open_sockets import is_open
from loader_service.broker.refusal import Refusal
from loader_service.broker.worker import Worker
from loader_service.sandbox.cgroup import Group
from loader_service.worker.control import (
    NUMBER,
    BadMessage,
    Message,
    pack,
    pack_fields,
    unpack_fields,
)
from loader_service.worker.orders import Go
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits

if TYPE_CHECKING:
    from loader_service.broker.host import Host


class Stage(Enum):
    """How far a model has come in its host."""

    ARRIVING = "arriving"
    PARSED = "being verified and loaded"
    FAILED = "not loaded"
    LOADED = "loaded"


class Seat(Mortal):
    """A model of a host. What ends the host ends it; its own quiet end leaves the others."""

    shared = True
    parked = False
    devices: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    reported = b""

    def __init__(self, host: Host, number: int, channel: socket.socket, limits: Limits) -> None:
        """Take the place of that number, with the client's end of its channel."""
        super().__init__()
        self.number = number
        self.channel: socket.socket | None = channel
        self.limits = limits
        self.stage = Stage.ARRIVING
        self.said: set[Message] = set()
        """What the host has said of it: each kind of message comes once at most."""
        self.serving = False
        self.suspect = False
        """Whether it may be the one that made the host die."""
        self.calls = 0
        """Computations that the host reports; its own word."""
        self._host = host
        self._about = NUMBER.pack(number)
        self._inode = os.fstat(channel.fileno()).st_ino
        self._answers: asyncio.Queue[tuple[Message, bytes] | None] = asyncio.Queue()
        self.when_ended(lambda _: self._answers.put_nowait(None))

    @property
    def pid(self) -> int:
        """The host's process."""
        return self._host.pid

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that hold the host."""
        return self._host.layers

    @property
    def missing(self) -> dict[str, str]:
        """The layers that this host's machine refused."""
        return self._host.missing

    @property
    def group(self) -> Group | None:
        """The host's cgroup."""
        return self._host.group

    @property
    def reusable(self) -> bool:
        """Whether its channel can be another model's: nobody has held the client's end."""
        return self.channel is not None and self.stage is not Stage.LOADED

    def usage(self) -> Usage:
        """Return what the host uses now, with all its models."""
        return self._host.usage()

    async def verdict(self) -> Failure:
        """Wait until a model is gone whose host is dying; returns why."""
        if self.lost is None:
            verdict = await self._host.verdict()
            return self.lost or verdict
        return replace(self.lost, model_lost=True)

    def kill(self, reason: Failure) -> None:
        """End the model; the others live on if it was only let go of, or had not begun.

        A computation and a load cannot be called back: what is wrong with them ends the process.
        """
        if self.lost is not None:
            return
        begun = self.stage in (Stage.PARSED, Stage.LOADED)
        if begun and reason.cause not in (Cause.CLOSED, Cause.CANCELLED):
            self._host.kill(reason)
        else:
            self._host.leave(self, reason)

    async def open(self, go: Go) -> None:
        """Order the host to expect this model; raises Refusal."""
        await self._host.say(pack_fields(Message.OPEN, go.to_fields(), self._about))

    async def send_model(self, piece: memoryview) -> None:
        """Pass on a piece of the model; raises Refusal if it has failed already."""
        if not self._answers.empty():
            await self.expect()
        await self._host.say(pack(Message.MODEL, self._about + bytes(piece)))

    async def send_held(self, content: ModelBytes, start: int, length: int) -> None:
        """Pass on a piece of sealed memory; else as `send_model`.

        It is copied: a message goes on to its end when the load is over, and the memory closed.
        """
        await self.send_model(memoryview(os.pread(content.fileno(), length, start)))

    async def end_model(self) -> None:
        """Say that the model is complete, when those before it are loaded; raises Refusal."""
        await self._host.take_turn(self)
        self.stage = Stage.PARSED
        await self._host.say(pack(Message.MODEL_END, self._about))

    async def expect(self, *kinds: Message) -> dict[str, object]:
        """Wait for a message of one of `kinds`; raises Refusal (see `Control.expect`)."""
        item = await self._answers.get()
        if item is None:
            self._answers.put_nowait(None)
            raise Refusal(await self.verdict())
        kind, payload = item
        try:
            fields = unpack_fields(payload)
            if kind is not Message.FAILED and kind not in kinds:
                raise BadMessage(f"{kind.name} came unasked")
        except BadMessage as error:
            self._host.kill(broken(error))
            raise Refusal(await self.verdict()) from None
        if kind is Message.FAILED:
            raise Refusal(failure_reported(fields))
        return fields

    def heard(self, kind: Message, payload: bytes) -> None:
        """Take what the host says of this model; raises BadMessage for what cannot be."""
        if kind is Message.GONE and self.stage is Stage.LOADED:
            self._host.leave(self, self._left())
        elif kind is Message.LOADED and self.stage is Stage.PARSED:
            self.stage = Stage.LOADED
            self._answers.put_nowait((kind, payload))
        elif kind is Message.FAILED and self.stage in (Stage.ARRIVING, Stage.PARSED):
            self.stage = Stage.FAILED
            self._answers.put_nowait((kind, payload))
        else:
            raise BadMessage(f"{kind.name} may not come for this model now")

    def drop_channel(self) -> None:
        """Close the broker's copy of the client's end."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def _left(self) -> Failure:
        """Say why the host closed the channel: its client has gone, or it did so by itself."""
        if is_open(self._inode):
            self.suspect = True
            message = "the worker closed the model's channel, which its client still held"
            return Failure(Cause.CRASHED, message, model_lost=True)
        return Failure(Cause.CLOSED, "the model's channel was closed", model_lost=True)


Place = Worker | Seat
"""Where a model lives: a worker of its own, or its seat in the host of its origin."""
