"""An exchange whose answer is expected: all sizes are known before the request goes.

The reply is read straight into the answer's tensors behind a head that is compared, not parsed.
Anything else than the expected head, or a part of it, makes this an `Exchange` like any other:
what came is moved to where that one reads, and is checked there with all care.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from model_loader_wire.buffers import Buffer, byte_view, rest
from model_loader_wire.exchange import FIRST_READ, LOG_LENGTH, Exchange, KnownTable, Places
from model_loader_wire.frames import BadFrame, Header, Kind, pack_header, unpack_header

_SEQUENCE = struct.Struct("<Q")
_SEQUENCE_PLACE = 8
_BEGIN = struct.Struct("<8sQQ")
"""A header's first part: what the frame is, sequence, payload length."""
_END_PLACE = 40
"""Where a header goes on behind the two times, which are the only thing that may differ."""


class Pattern(NamedTuple):
    """What requests and answers of a signature look like but for sequence, times and data."""

    request: bytes
    request_length: int
    answer_kind: bytes
    answer_end: bytes
    answer_head: int
    answer_length: int
    known: KnownTable
    most: int


def pattern_of(signature: int, request: KnownTable, answer: KnownTable, most: int) -> Pattern:
    """Prepare a signature of fixed sizes; `most` is the largest payload of any answer."""
    request_head = _head(Kind.COMPUTE, signature, request)
    answer_head = _head(Kind.ANSWER, signature, answer)
    return Pattern(
        request_head,
        len(request_head) + request.payload_length,
        answer_head[:_SEQUENCE_PLACE],
        answer_head[_END_PLACE:],
        len(answer_head),
        len(answer_head) + answer.payload_length,
        answer,
        most,
    )


def _head(kind: Kind, signature: int, table: KnownTable) -> bytes:
    return (
        pack_header(
            kind,
            0,
            signature=signature,
            payload_length=table.payload_length,
            table_length=len(table.table),
            tensors=len(table.entries),
        )
        + table.table
    )


class SteadyExchange(Exchange):
    """A computation by a `Pattern`."""

    def __init__(
        self,
        pattern: Pattern,
        sequence: int,
        payload: Sequence[Buffer],
        targets: Sequence[Any],
        places: Places,
    ) -> None:
        """Prepare to send `payload` and to fill `targets`, C-contiguous buffers as in the pattern.

        `places` gives memory for the answer if it does not come as expected.
        """
        head = bytearray(pattern.request)
        _SEQUENCE.pack_into(head, _SEQUENCE_PLACE, sequence)
        self.sequence = sequence
        self.sent_counts = []
        self.received_counts = []
        self._parts = [head, *payload]
        self._length = pattern.request_length
        self._pattern = pattern
        self._places = places
        # One byte more than there should be: so a reply that goes on after its end is noticed.
        spare = bytearray(1)
        self._expecting: list[Any] | None = [bytearray(pattern.answer_head), *targets, spare]

    @property
    def header(self) -> Header | None:
        """The reply's header, when the head has been read."""
        if self._expecting is not None:
            return unpack_header(self._expecting[0]) if self.done else None
        return super().header

    @property
    def is_certain(self) -> bool:
        """See `Exchange.is_certain`."""
        return bool(self.received_counts) if self._expecting is not None else super().is_certain

    def space(self) -> memoryview:
        """See `Exchange.space`."""
        if self._expecting is None:
            return super().space()
        return byte_view(self.spaces(1)[0])

    def spaces(self, most: int) -> list[Any]:
        """See `Exchange.spaces`."""
        expecting = self._expecting
        if expecting is None:
            return super().spaces(most)
        counts = self.received_counts
        if counts:
            return rest(expecting[:-1], sum(counts))[:most]
        return expecting[:most]

    def advance(self) -> None:
        """See `Exchange.advance`."""
        expecting = self._expecting
        if expecting is None:
            super().advance()
            return
        counts = self.received_counts
        if not counts:
            return
        pattern = self._pattern
        if len(counts) > LOG_LENGTH:
            counts[:] = [sum(counts)]
        got = sum(counts)
        head = expecting[0]
        begin = _BEGIN.pack(pattern.answer_kind, self.sequence, pattern.known.payload_length)
        if (
            got >= pattern.answer_head
            and head[: _BEGIN.size] == begin
            and head[_END_PLACE:] == pattern.answer_end
        ):
            if got == pattern.answer_length:
                self.entries = pattern.known.entries
                self.done = True
            elif got > pattern.answer_length:
                raise BadFrame("the reply goes on after its end")
            return
        self._look_closely(got)
        super().advance()

    def abandon(self) -> None:
        """See `Exchange.abandon`."""
        if self._expecting is not None and not self.done:
            self._look_closely(sum(self.received_counts))
        super().abandon()

    def _look_closely(self, got: int) -> None:
        """Move what came to where `Exchange` reads a reply's beginning."""
        assert self._expecting is not None
        scratch = bytearray(got + FIRST_READ)  # never full: there must be room to read on
        place = 0
        for piece in self._expecting:
            view = byte_view(piece)[: got - place]
            scratch[place : place + len(view)] = view
            place += len(view)
        self._read_from(scratch, self._pattern.known, self._pattern.most)
        self._expecting = None  # last: from here on this is an exchange like any other
