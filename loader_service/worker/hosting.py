"""The loop of a worker that holds several models of one origin: a host.

One thread: one model computes, or is loaded, at a time. The host waits for all its channels and
the control socket at once and never for one of them alone, so that a client that sends half a
request, or does not read its answer, holds up nobody else. Between two computations it looks at the
control socket if a quarter of a second has passed.
"""

from __future__ import annotations

import gc
import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic_ns
from typing import NamedTuple, NoReturn

from loader_service.runtime.allocations import give_back, limit_all
from loader_service.runtime.engine import Runtime
from loader_service.worker.control import (
    HEAD,
    MODEL_PIECE,
    NUMBER,
    BadMessage,
    Message,
    pack,
    unpack_fields,
    unpack_head,
)
from loader_service.worker.failing import failure_of
from loader_service.worker.guest import Guest
from loader_service.worker.inbox import ChannelClosed
from loader_service.worker.opening import open_model
from loader_service.worker.orders import Go
from loader_service.worker.receiving import BrokerGone, IncomingModel, fill
from loader_service.worker.saying import say, say_facts, say_failed
from loader_service.worker.serving import LOOK_AFTER_NS, STDERR
from model_loader_wire.causes import Failure
from model_loader_wire.frames import BadFrame

TURN_BYTES = 256 << 10
"""What is received from one channel before the others have their turn."""


class _Arriving(NamedTuple):
    """A model that is not loaded yet."""

    go: Go
    model: IncomingModel


class Host:
    """Models by the numbers of their channels, each served in turn."""

    def __init__(
        self, runtime: Runtime, control: socket.socket, channels: Sequence[socket.socket]
    ) -> None:
        """Take over channels that do not block; a model comes to each by orders of the broker."""
        self._runtime = runtime
        self._control = control
        self._channels = channels
        self._numbers = {channel.fileno(): number for number, channel in enumerate(channels)}
        self._arriving: dict[int, _Arriving] = {}
        self._guests: dict[int, Guest] = {}
        self._calls = [0] * len(channels)
        self._scratch = memoryview(bytearray(TURN_BYTES))
        self._orders = select.poll()
        self._orders.register(control, select.POLLIN)
        self._all = select.poll()
        self._all.register(control, select.POLLIN)
        self._looked = monotonic_ns()

    def run(self) -> NoReturn:
        """Serve until the broker has gone: raises BrokerGone, BadMessage or ConnectionError."""
        while True:
            for descriptor, _ in self._all.poll():
                if descriptor == self._control.fileno():
                    self._obey()
                    continue
                if monotonic_ns() - self._looked > LOOK_AFTER_NS:
                    self._look_at_orders()
                self._serve(self._numbers[descriptor])

    def _finish_answers(self) -> None:
        """Send what is left of answers that have begun; the broker says how long that may last."""
        unfinished = {
            self._channels[number].fileno(): guest
            for number, guest in self._guests.items()
            if guest.awaits == select.POLLOUT
        }
        answers = select.poll()
        for descriptor in unfinished:
            answers.register(descriptor, select.POLLOUT)
        while unfinished:
            for descriptor, _ in answers.poll():
                guest = unfinished[descriptor]
                with suppress(ChannelClosed):
                    guest.turn()
                    if guest.awaits == select.POLLOUT:
                        continue
                answers.unregister(descriptor)
                del unfinished[descriptor]

    def _serve(self, number: int) -> None:
        """Give a model its turn; one whose client has gone is forgotten."""
        guest = self._guests.get(number)
        if guest is None:
            return
        awaited = guest.awaits
        try:
            guest.turn()
        except ChannelClosed:
            pass
        except BadFrame as error:
            # Where the next frame begins cannot be known; a client that does this is not missed.
            os.write(STDERR, f"a client sent what is no request: {error}\n".encode())
        else:
            if guest.awaits != awaited:
                self._all.modify(self._channels[number], guest.awaits)
            return
        del guest
        self._forget(number)
        say(self._control, pack(Message.GONE, NUMBER.pack(number)))

    def _look_at_orders(self) -> None:
        while self._orders.poll(0):
            self._obey()

    def _obey(self) -> None:
        """Carry out one order. The broker sends each at once: its rest is waited for."""
        self._looked = monotonic_ns()
        kind, length = unpack_head(self._receive(HEAD.size), NUMBER.size + MODEL_PIECE)
        if kind is Message.PING:
            counts = b"".join(count.to_bytes(8, "little") for count in self._counts())
            say(self._control, pack(Message.PONG, bytes(self._receive(length)) + counts))
        elif kind is Message.FINISH:
            self._finish_answers()
            raise BrokerGone
        elif kind in (Message.OPEN, Message.MODEL, Message.MODEL_END, Message.CLOSE):
            (number,) = NUMBER.unpack(self._receive(NUMBER.size))
            length -= NUMBER.size
            if kind is Message.OPEN:
                self._open(number, Go.from_fields(unpack_fields(self._receive(length))))
            elif kind is Message.MODEL:
                self._take_piece(number, length)
            elif kind is Message.MODEL_END:
                self._load(number)
            else:
                self._forget(number)
                say(self._control, pack(Message.CLOSED, NUMBER.pack(number)))
        else:
            raise BadMessage(f"{kind.name} may not come now")

    def _open(self, number: int, go: Go) -> None:
        try:
            self._arriving[number] = _Arriving(go, IncomingModel(go.model_size))
        except MemoryError as error:
            self._fail(number, failure_of(error, self._memory_bytes(go)))
        self._tell_memory()

    def _take_piece(self, number: int, length: int) -> None:
        """Take a piece of a model; the pieces of one that has failed are let go by."""
        arriving = self._arriving.get(number)
        try:
            if arriving is not None:
                fill(self._control, arriving.model.space(length))
                return
        except MemoryError as error:
            self._fail(number, failure_of(error, self._memory_bytes()))
        while length:
            piece = self._scratch[: min(length, TURN_BYTES)]
            fill(self._control, piece)
            length -= len(piece)

    def _load(self, number: int) -> None:
        """Verify and load a model; if that fails, the others go on as before."""
        arriving = self._arriving.pop(number, None)
        if arriving is None:
            return
        go = arriving.go
        try:
            self._guests[number] = self._admit(number, arriving)
        except (BadMessage, ConnectionError):
            raise
        except Exception as error:
            failure = failure_of(error, self._memory_bytes(go))
        else:
            self._all.register(self._channels[number], self._guests[number].awaits)
            self._tell_memory()
            return
        del arriving
        self._fail(number, failure)

    def _admit(self, number: int, arriving: _Arriving) -> Guest:
        """Make a model that has come whole a guest, and declare it."""
        go = arriving.go
        opened = open_model(self._runtime, arriving.model.whole(), go)
        guest = Guest(opened.model, self._channels[number], go, self._scratch)
        say_facts(self._control, Message.LOADED, opened.declaration(), NUMBER.pack(number))
        return guest

    def _fail(self, number: int, failure: Failure) -> None:
        """Forget a model that is not loaded, and say why."""
        self._arriving.pop(number, None)
        self._give_back()
        say_failed(self._control, failure, NUMBER.pack(number))

    def _forget(self, number: int) -> None:
        """Let go of a model and its channel, however far it has come."""
        self._arriving.pop(number, None)
        guest = self._guests.pop(number, None)
        if guest is not None:
            self._calls[number] = guest.calls
            self._all.unregister(self._channels[number])
            self._channels[number].close()
            del guest
        self._give_back()

    def _give_back(self) -> None:
        """Return the memory of a model that is gone: the broker lowers the limit by its part."""
        gc.collect()
        give_back()
        self._tell_memory()

    def _tell_memory(self) -> None:
        memory_bytes = self._memory_bytes()
        limit_all(memory_bytes)
        for guest in self._guests.values():
            guest.limit_memory(memory_bytes)

    def _memory_bytes(self, another: Go | None = None) -> int:
        """The limit that holds now: the sum of what each model may have."""
        arriving = [item.go.memory_bytes for item in self._arriving.values()]
        own = [guest.memory_bytes for guest in self._guests.values()]
        return sum(arriving) + sum(own) + (another.memory_bytes if another else 0)

    def _counts(self) -> list[int]:
        return [
            self._guests[number].calls if number in self._guests else self._calls[number]
            for number in range(len(self._channels))
        ]

    def _receive(self, count: int) -> bytearray:
        data = bytearray(count)
        fill(self._control, memoryview(data))
        return data
