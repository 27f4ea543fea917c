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
from loader_service.worker.control import HEAD, PONG, Message, pack, unpack_head
from loader_service.worker.failing import Refused, failure_of
from loader_service.worker.inbox import ChannelClosed, Inbox
from loader_service.worker.orders import Go
from loader_service.worker.requests import Known, Requests
from loader_service.worker.steady import SteadyCall
from model_loader_wire.buffers import byte_view
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import (
    BadFrame,
    Entry,
    Header,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_header,
)
from model_loader_wire.polling import Polling
from model_loader_wire.strings import BadStrings, unpack_strings

LOOK_AFTER_NS = 250_000_000
PING = struct.Struct("<Q")
PARTS_AT_A_TIME = 1024
"""What one writev takes (IOV_MAX)."""
STDERR = 2


def prepare_channel(channel: socket.socket) -> None:
    """Make waits on the channel end after a quarter of a second; done before the lock-down."""
    quarter = struct.pack("@ll", 0, LOOK_AFTER_NS // 1000)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, quarter)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, quarter)


class Serving:
    """A loaded model answering on its channel until the client or the broker goes."""

    def __init__(
        self,
        model: LoadedModel,
        channel: socket.socket,
        control: socket.socket,
        go: Go,
        when_pinged: Callable[[], None] | None = None,
    ) -> None:
        self._model = model
        self._when_pinged = when_pinged
        self._channel = channel.fileno()
        self._control = control
        self._inbox = Inbox(channel, self._between_answers, self._between_requests)
        self._go = go
        self._looked = monotonic_ns()
        self._is_to_finish = False
        self._is_to_park_at: int | None = None
        self._calls = 0
        self._requests = Requests(model.description, go.tensor_bytes)
        self._last: Known | None = None
        self._steady: SteadyCall | None = None
        self._polling = Polling()
        self._answer_table: tuple[tuple[Entry, ...], bytes] = ((), b"")

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

    def _next(self) -> None:
        """Serve a request of any kind."""
        header = self._inbox.header()
        if header.kind is Kind.COMPUTE:
            if self._compute(header):
                self._expect_again(header)
        elif header.kind is Kind.RESET:
            self._reset(header)
        else:
            raise BadFrame(f"a frame of kind {header.kind.name} is no request")

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

    def _expect_again(self, header: Header) -> None:
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

    def _compute(self, header: Header) -> bool:
        """Serve a computation; whether it was answered, and not with a failure."""
        began = monotonic_ns()
        table = self._inbox.take(header.table_length)
        unread = header.payload_length
        try:
            entries = self._requests.check(header, table)
            views = self._model.prepare_inputs(
                header.signature, [entry.dimensions for entry in entries]
            )
            for position, (entry, view) in enumerate(zip(entries, views, strict=True)):
                if view is None:
                    text = bytearray(entry.byte_length)
                    self._inbox.fill(memoryview(text))
                    unread -= entry.byte_length
                    strings = unpack_strings(text, _count(entry.dimensions))
                    self._model.set_strings(header.signature, position, entry.dimensions, strings)
                elif len(view) != entry.byte_length:
                    raise Refused(
                        Cause.INVALID_INPUT,
                        f"input {position} has {entry.byte_length} bytes, expected {len(view)}",
                    )
                else:
                    self._inbox.fill(view)
                    unread -= entry.byte_length
            ready = monotonic_ns()
            self._model.invoke(header.signature)
            computed = monotonic_ns()
            self._answer(header, ready - began, computed - ready)
            self._calls += 1
        except ChannelClosed:
            raise
        except BadStrings as error:
            self._refuse(header, unread, Failure(Cause.INVALID_INPUT, str(error)))
        except Exception as error:
            self._refuse(header, unread, failure_of(error, self._go.memory_bytes))
        else:
            return True
        return False

    def _answer(self, header: Header, queue_ns: int, compute_ns: int) -> None:
        outputs = self._model.outputs(header.signature)
        total = sum(len(output.data) for output in outputs)
        if total > self._go.output_bytes:
            raise Refused(
                Cause.LIMIT,
                f"the outputs have {total} bytes, "
                f"the limit output_bytes is {self._go.output_bytes}",
                limit="output_bytes",
                value=total,
                maximum=self._go.output_bytes,
            )
        entries = tuple(
            Entry(output.data_type, output.dimensions, len(output.data)) for output in outputs
        )
        if entries != self._answer_table[0]:
            self._answer_table = (entries, pack_table(entries))
        table = self._answer_table[1]
        head = pack_header(
            Kind.ANSWER,
            header.sequence,
            signature=header.signature,
            payload_length=total,
            table_length=len(table),
            tensors=len(entries),
            queue_ns=queue_ns,
            compute_ns=compute_ns,
        )
        self._write([head + table, *(output.data for output in outputs if len(output.data))])

    def _reset(self, header: Header) -> None:
        unread = header.table_length + header.payload_length
        try:
            self._inbox.skip(unread)
            unread = 0
            self._model.reset()
            self._requests.known.clear()
            self._last = None
            self._write([pack_header(Kind.DONE, header.sequence)])
        except ChannelClosed:
            raise
        except Exception as error:
            self._refuse(header, unread, failure_of(error, self._go.memory_bytes))

    def _refuse(self, header: Header, unread: int, failure: Failure) -> None:
        """Read what is left of the request, so that the next one begins in its place; then say."""
        self._inbox.skip(unread)
        payload = pack_failure(failure)
        head = pack_header(Kind.FAILURE, header.sequence, payload_length=len(payload))
        self._write([head + payload])

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


def _count(dimensions: tuple[int, ...]) -> int:
    count = 1
    for size in dimensions:
        count *= size
    return count
