"""The worker's main loop: read a request, compute, write the answer.

One thread, blocking. The worker waits only on its channel and looks at the control socket when a
quarter of a second has passed, because polling both for each call costs 11 to 30 microseconds.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from loader_service.runtime.engine import LoadedModel
from loader_service.worker.answering import PARTS_AT_A_TIME, Answering
from loader_service.worker.control import HEAD, PONG, Message, pack, unpack_head
from loader_service.worker.failing import failure_of
from loader_service.worker.inbox import ChannelClosed, Inbox
from loader_service.worker.orders import Go
from loader_service.worker.requests import Known
from loader_service.worker.steady import SteadyCall
from model_loader_wire.buffers import byte_view
from model_loader_wire.frames import BadFrame, Header, Kind, pack_header, unpack_header
from model_loader_wire.polling import Polling

LOOK_AFTER_NS = 250_000_000
PING = struct.Struct("<Q")
STDERR = 2


def prepare_channel(channel: socket.socket) -> None:
    """Make waits on the channel end after a quarter of a second; done before the lock-down."""
    quarter = struct.pack("@ll", 0, LOOK_AFTER_NS // 1000)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, quarter)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, quarter)


class Serving(Answering):
    """A loaded model answering on its channel until the client or the broker goes."""

    def __init__(
        self,
        model: LoadedModel,
        channel: socket.socket,
        control: socket.socket,
        go: Go,
        when_pinged: Callable[[], None] | None = None,
    ) -> None:
        inbox = Inbox(channel, self._between_answers, self._between_requests)
        super().__init__(model, channel, inbox, go)
        self._when_pinged = when_pinged
        self._control = control
        self._looked = monotonic_ns()
        self._is_to_finish = False
        self._is_to_park_at: int | None = None
        self._last: Known | None = None
        self._steady: SteadyCall | None = None
        self._polling = Polling()

    def run(self) -> None:
        """Serve until the channel or the control socket ends."""
        try:
            while True:
                steady = self._steady
                if steady is not None:
                    self._compute_steadily(steady)
                else:
                    self._next()
                    if monotonic_ns() - self._looked > LOOK_AFTER_NS:
                        self._between_requests()
        except ChannelClosed:
            return
        except BadFrame as error:
            # Where the next frame begins cannot be known; a client that does this is not missed.
            os.write(STDERR, f"the client sent what is no request: {error}\n".encode())

    def _compute_steadily(self, steady: SteadyCall) -> None:
        """Serve a request that is like the last one, or leave it in the inbox for `_next`."""
        began = steady.receive()
        if not began:
            self._steady = self._last = None
            return
        try:
            ready = monotonic_ns()
            steady.run()
            computed = monotonic_ns()
            parts = steady.answer(ready - began, computed - ready)
            if parts is None:
                self._steady = self._last = None
                self._answer(unpack_header(steady.head), ready - began, computed - ready)
            else:
                self._write(parts, steady.answer_length)
            self._calls += 1
        except ChannelClosed:
            raise
        except Exception as error:
            self._steady = self._last = None
            self._refuse(unpack_header(steady.head), 0, failure_of(error, self._go.memory_bytes))
            return
        if computed - self._looked > LOOK_AFTER_NS:
            self._between_requests()

    def _computed(self, header: Header) -> None:
        """Take the steady path from now on if this request was like the one before.

        Not while there are bytes in the inbox: that path reads from the channel only. Nor with more
        inputs than one system call fills.
        """
        if header.tensors >= PARTS_AT_A_TIME:
            return
        known = self._requests.known[header.signature]
        if known is not self._last:
            self._last = known
            return
        if not self._inbox.is_empty:
            return
        run = self._model.steady(header.signature)
        if run is None:
            return
        entries, table = self._answer_table
        answer_length = sum(entry.byte_length for entry in entries)
        answer_head = pack_header(
            Kind.ANSWER,
            0,
            signature=header.signature,
            payload_length=answer_length,
            table_length=len(table),
            tensors=len(entries),
        )
        self._steady = SteadyCall(
            run,
            self._channel,
            self._inbox,
            self._polling,
            request_head=pack_header(**header._asdict()) + known.table,
            request_length=header.payload_length,
            answer_head=answer_head + table,
            answer_length=answer_length,
        )

    def _write(self, parts: list[Any], remaining: int | None = None) -> None:
        """Write everything, in one system call where the channel takes it.

        `parts` are bytes, or any C-contiguous buffers where their length in bytes is given.
        """
        if remaining is None:
            remaining = sum(len(part) for part in parts)
        length = remaining
        try:
            while True:
                try:
                    count = os.writev(self._channel, parts[:PARTS_AT_A_TIME])
                except BlockingIOError:
                    self._look_at_control()
                    continue
                except (BrokenPipeError, ConnectionError):
                    raise ChannelClosed from None
                remaining -= count
                if remaining == 0:
                    return
                while count:
                    first = byte_view(parts[0])
                    if count < len(first):
                        parts[0] = first[count:]
                        break
                    count -= len(first)
                    del parts[0]
        except Exception as error:
            if remaining == length:
                raise
            # A failure that followed half an answer would be read as the answer's rest.
            raise ChannelClosed from error

    def _between_answers(self) -> None:
        """Look at the control socket; a worker that is to finish has nothing more to do."""
        self._look_at_control()
        if self._is_to_finish:
            raise ChannelClosed

    def _between_requests(self) -> None:
        """Look at the control socket; a worker that is to be parked ends if nothing is asked of it.

        What its channel holds then is for the worker that comes after it.
        """
        self._between_answers()
        calls, self._is_to_park_at = self._is_to_park_at, None
        if calls == self._calls and self._inbox.is_empty:
            try:
                os.write(self._control.fileno(), pack(Message.PARKED))
            except ConnectionError:
                raise ChannelClosed from None
            raise ChannelClosed

    def _look_at_control(self) -> None:
        """Answer pings; the end of the control socket is the end of the worker."""
        self._looked = monotonic_ns()
        while True:
            message = bytearray(HEAD.size + PING.size)
            try:
                count = self._control.recv_into(message, len(message), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionError:
                raise ChannelClosed from None
            if count < len(message):
                raise ChannelClosed
            kind, _ = unpack_head(memoryview(message)[: HEAD.size], PING.size)
            if kind is Message.FINISH:
                self._is_to_finish = True
            elif kind is Message.PARK:
                (self._is_to_park_at,) = PING.unpack_from(message, HEAD.size)
            elif kind is Message.PING:
                (number,) = PING.unpack_from(message, HEAD.size)
                answer = pack(Message.PONG, PONG.pack(number, self._calls))
                try:
                    os.write(self._control.fileno(), answer)
                    if self._when_pinged is not None:
                        self._when_pinged()
                except ConnectionError:
                    raise ChannelClosed from None
