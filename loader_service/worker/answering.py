"""One request, computed and answered; whoever serves the channel says how it waits."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from time import monotonic_ns
from typing import Any

from loader_service.runtime.engine import LoadedModel
from loader_service.worker.failing import Refused, failure_of
from loader_service.worker.inbox import ChannelClosed, Inbox
from loader_service.worker.orders import Go
from loader_service.worker.requests import Requests
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import (
    BadFrame,
    Entry,
    Header,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
)
from model_loader_wire.strings import BadStrings, unpack_strings

PARTS_AT_A_TIME = 1024
"""What one writev takes (IOV_MAX)."""


class Answering(ABC):
    """A loaded model and its channel: a request is checked, read, computed and answered."""

    def __init__(self, model: LoadedModel, channel: socket.socket, inbox: Inbox, go: Go) -> None:
        self._model = model
        self._channel = channel.fileno()
        self._inbox = inbox
        self._go = go
        self._calls = 0
        self._requests = Requests(model.description, go.tensor_bytes)
        self._answer_table: tuple[tuple[Entry, ...], bytes] = ((), b"")

    def _next(self) -> None:
        """Serve a request of any kind."""
        header = self._inbox.header()
        if header.kind is Kind.COMPUTE:
            if self._compute(header):
                self._computed(header)
        elif header.kind is Kind.RESET:
            self._reset(header)
        else:
            raise BadFrame(f"a frame of kind {header.kind.name} is no request")

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

    def _computed(self, header: Header) -> None:  # noqa: B027 - most have nothing to do then
        """Told of a computation that was answered: the next request may be like it."""

    @abstractmethod
    def _write(self, parts: list[Any]) -> None:
        """Send an answer: bytes, and C-contiguous memory of the interpreter's as bytes."""


def _count(dimensions: tuple[int, ...]) -> int:
    count = 1
    for size in dimensions:
        count *= size
    return count
