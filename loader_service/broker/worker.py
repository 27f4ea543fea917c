"""The broker's handle of one worker: its messages, its pings, its channel."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from loader_service.broker import pings
from loader_service.broker.child import Child
from loader_service.broker.control import CLOSING_SECONDS, Control, Exchange
from loader_service.broker.last_words import LastWords
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.open_sockets import is_open
from loader_service.broker.refusal import Refusal
from loader_service.sandbox.cgroup import Group
from loader_service.worker.control import (
    FINISH_PAYLOAD,
    HEAD,
    LONGEST_DELEGATION,
    BadMessage,
    Message,
    pack,
    pack_fields,
)
from loader_service.worker.orders import Go, Task
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.limits import Limits

REPORTS_PER_PING = 16
"""Reports on devices that are taken between two pings; a true worker sends a few."""
PARKED = Failure(Cause.CLOSED, "the model was parked")
LAST_WORD = {
    Task.LOAD: {Message.FAILED},
    Task.HOST: set(),
    Task.INSPECT: {Message.FAILED, Message.LOADED},
    Task.REHEARSE: {Message.READY},
}
"""What a worker says when it has nothing to do any more: after that it may end by itself."""


class Worker(Child):
    """A living or dead worker. Whatever it says is checked."""

    answers: frozenset[Message] = frozenset()
    """Messages that are about one of several models."""
    devices: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Its devices, and what each was granted, in sentences."""
    reported = b""
    """What it last said of its devices, beside what it said when its model was loaded; unread."""
    parked = False
    """Whether it is none at present (see ``parkable``)."""
    shared = False
    """Whether it holds other models of the origin, too."""
    suspect = True
    """Whether its model may be the one that made it die."""

    def __init__(
        self,
        pid: int,
        control: socket.socket,
        channel: socket.socket | int,
        last_words: LastWords,
        group: Group | None,
        limits: Limits,
        on_end: Callable[[Worker], None],
        verdict_seconds: float,
    ) -> None:
        """Take over a child process that waits for GO, with everything that belongs to it.

        Of a channel whose other end its client has already there is only that end's inode.
        """
        super().__init__(pid, last_words, group, limits, verdict_seconds)
        self.when_ended(Worker._let_go)
        self.when_ended(on_end)
        self.channel: socket.socket | None = None
        if isinstance(channel, int):
            self.channel_inode = channel
        else:
            self.channel = channel
            self.channel_inode = os.fstat(channel.fileno()).st_ino
        self.kept_end: socket.socket | None = None
        """The worker's own end of its channel, where that may outlive it: see ``parkable``."""
        self.has_parked = False
        """Whether it has ended because it was asked to make room."""
        self.layers: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        self.serving = False
        """Whether it answers pings: not yet while it receives and loads its model."""
        self._control = Control(control, self)
        self._pings = pings.Pings()
        self._reports_left = REPORTS_PER_PING
        self._last_word: set[Message] = set()
        self._said_last_word = False

    @property
    def calls(self) -> int:
        """Computations that the worker reports; its own word."""
        return self._pings.calls

    def finish(self, reason: Failure) -> None:
        """Let it end by itself once it computes nothing; one that has no model yet ends at once.

        The first reason stays on record. A computation that takes too long ends it as ever.
        """
        if self.lost is not None:
            return
        if not self.serving:
            self.kill(reason)
            return
        if self._killed_for is None:
            self._killed_for = reason
            self._say_finish()

    def park(self) -> None:
        """Let it end if it has not computed since it last said how often, and nothing is asked."""
        self.answers |= {Message.PARKED}
        with suppress(OSError):
            self._control.say_now(pack(Message.PARK, pings.PING.pack(self.calls)))

    def _say_finish(self) -> None:
        # One that has stopped reading is ended when its time is up.
        with suppress(OSError):
            self._control.say_now(pack(Message.FINISH, FINISH_PAYLOAD))

    async def begin(self, go: Go) -> None:
        """Send GO and wait until the worker has locked itself down; raises Refusal."""
        if self.lost is not None:
            raise Refusal(self.lost)
        self._control.begin()
        self._last_word = LAST_WORD[Task(go.task)]
        await self._control.send(pack_fields(Message.GO, go.to_fields()))
        fields = await self.expect(Message.READY)
        layers, missing = fields.get("layers"), fields.get("missing")
        if isinstance(layers, list) and isinstance(missing, dict):
            self.layers = tuple(printable(str(layer), 64) for layer in layers[:64])
            self.missing = {
                printable(str(layer), 64): printable(str(reason), 200)
                for layer, reason in list(missing.items())[:64]
            }

    async def send_model(self, piece: memoryview) -> None:
        """Pass on at most MODEL_PIECE bytes of the model; waits while the worker is behind.

        Raises Refusal if the worker has gone.
        """
        await self._control.send(pack(Message.MODEL, piece))

    async def send_held(self, content: ModelBytes, start: int, length: int) -> None:
        """Pass on a piece of sealed memory, at most MODEL_PIECE bytes; else as `send_model`."""
        await self._control.send(HEAD.pack(length, Message.MODEL))
        await self._control.send_file(content.fileno(), start, length)

    async def end_model(self) -> None:
        """Say that the model is complete; raises Refusal if the worker has gone."""
        await self._control.send(pack(Message.MODEL_END))

    async def expect(self, *kinds: Message) -> dict[str, object]:
        """Wait for a message of one of `kinds`; raises Refusal (see `Control.expect`)."""
        return await self._control.expect(*kinds)

    def heard(self, kind: Message) -> None:
        """Take note of a message that has come."""
        self._said_last_word |= kind in self._last_word

    def has_devices(self, devices: Mapping[str, tuple[str, ...]]) -> None:
        """Note what a worker has that was made for devices, and listen to what it says of them."""
        self.devices = devices
        self.answers |= {Message.DELEGATION}

    def exchanges(self, exchange: Exchange) -> None:
        """Let the worker ask for things while it loads its model."""
        self._control.exchange = exchange

    def answered(self, kind: Message, payload: bytes) -> None:
        """Keep a report on devices, which is read when somebody asks; raises BadMessage."""
        if kind is Message.PARKED:
            self.has_parked = True
            self.kill(PARKED)
            return
        if len(payload) > LONGEST_DELEGATION:
            raise BadMessage(f"a report on devices has {len(payload)} bytes")
        if not self._reports_left:
            raise BadMessage("too many reports on devices")
        self._reports_left -= 1
        self.reported = payload

    def pong(self, payload: bytes) -> None:
        """Take the answer to a ping; raises BadMessage."""
        self._pings.answered(payload)

    def ping(self) -> None:
        """Look whether a serving worker answers: one that is silent for too long is ended."""
        if not self.serving or self.lost is not None:
            return
        now = time.monotonic()
        seconds = self.limits.compute_seconds or 0
        if (ping := self._pings.ask(now)) is not None:
            self._reports_left = REPORTS_PER_PING
            # One that has stopped reading does not answer: that is noticed below.
            with suppress(OSError):
                self._control.say_now(pack(Message.PING, ping))
        elif (silent := self._pings.silence(now)) > seconds + pings.PING_SLACK_SECONDS:
            message = f"the computation took longer than compute_seconds = {seconds:g}"
            self.kill(Failure(Cause.TIMEOUT, message, "compute_seconds", silent, seconds))

    def drop_channel(self) -> None:
        """Close the broker's copy of the client's end; after that, only the client holds it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def drop_kept_end(self) -> None:
        """Let the channel end with the worker."""
        if self.kept_end is not None:
            self.kept_end.close()
            self.kept_end = None

    def _hear_out(self, judge: Callable[[], None]) -> None:
        # If somebody else holds its end of the control socket, that does not end with it.
        self._loop.call_later(CLOSING_SECONDS, judge)
        self._control.when_read(judge)

    def _may_end(self) -> bool:
        """Whether it had nothing left to do: its client has gone, or it has said its last.

        Where the kernel does not show who holds a channel, the worker is given the doubt.
        """
        if self._said_last_word and not self.serving:
            return True
        return not is_open(self.channel_inode)

    def _let_go(self) -> None:
        """Close what joined the broker with it, before anybody is told of its death."""
        self.drop_channel()
        self.drop_kept_end()
        self._control.stop_reading()
        self._control.close_if_over()
