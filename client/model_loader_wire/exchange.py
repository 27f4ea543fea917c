"""One request on the channel and its reply, as a state machine that does no I/O.

A driver (blocking, asyncio, or the broker's relay) sends ``outgoing`` and tells ``sent``, then
fills ``space()`` and tells ``received`` until ``done``. An exchange that was interrupted can be
carried on or drained by another driver call, because all progress is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model_loader_wire.causes import Failure
from model_loader_wire.frames import (
    FAILURE_LENGTH,
    HEADER,
    BadFrame,
    Entry,
    Header,
    Kind,
    pack_header,
    unpack_failure,
    unpack_header,
    unpack_table,
)

Buffer = bytes | bytearray | memoryview

FIRST_READ = 16 << 10
"""Bytes asked for at first: a small reply comes in one call, a large one is read in place."""
GROWTH = 1 << 20
"""A buffer that no declaration covers grows by at most this much ahead of the bytes received."""

Places = Callable[[tuple[Entry, ...]], Sequence[memoryview] | None]
"""Checks an answer's table (raising BadFrame) and gives memory for its tensors, or None to let the
exchange grow buffers of its own."""


class Exchange:
    """A request that was encoded and the reply to it, however far they have come."""

    def __init__(
        self,
        kind: Kind,
        sequence: int,
        *,
        signature: int = 0,
        table: bytes = b"",
        payload: Sequence[Buffer] = (),
        places: Places | None = None,
        most: int = 0,
    ) -> None:
        """Encode a request; `most` is the largest payload that an answer may have, in bytes."""
        length = sum(len(part) for part in payload)
        head = pack_header(
            kind,
            sequence,
            signature=signature,
            payload_length=length,
            table_length=len(table),
            tensors=len(payload),
        )
        self.outgoing: list[Buffer] = [head + table, *payload] if length else [head + table]
        self.unsent = len(head) + len(table) + length
        self.sequence = sequence
        self.expected = Kind.DONE if kind is Kind.RESET else Kind.ANSWER
        self.most = most
        self.header: Header | None = None
        self.entries: tuple[Entry, ...] = ()
        self.tensors: list[memoryview] = []
        self.failure: Failure | None = None
        self.done = False
        self._places = places
        self._scratch = bytearray(FIRST_READ)
        self._filled = 0
        self._wanted: list[memoryview] = []
        self._grown: bytearray | None = None

    def sent(self, count: int) -> None:
        """Note that the first `count` bytes of ``outgoing`` have gone."""
        self.unsent -= count
        if self.unsent == 0:
            self.outgoing = []
            return
        while count:
            part = memoryview(self.outgoing[0])
            if count < len(part):
                self.outgoing[0] = part[count:]
                return
            count -= len(part)
            self.outgoing.pop(0)

    def space(self) -> memoryview:
        """Memory for the next bytes of the reply; never empty while not ``done``."""
        if self._wanted:
            return self._wanted[0]
        return memoryview(self._scratch)[self._filled :]

    def received(self, count: int) -> None:
        """Note that `count` bytes were put into ``space()``; raises BadFrame for a bad reply."""
        if count <= 0:
            raise BadFrame("the channel ended")
        if self._wanted:
            rest = self._wanted[0][count:]
            if len(rest):
                self._wanted[0] = rest
                return
            self._wanted.pop(0)
            if not self._wanted:
                self._completed()
            return
        self._filled += count
        self._read_head()

    def _read_head(self) -> None:
        header = self.header
        if header is None:
            if self._filled < HEADER.size:
                return
            header = self.header = unpack_header(memoryview(self._scratch)[: HEADER.size])
            self._check(header)
            missing = HEADER.size + header.table_length - len(self._scratch)
            if missing > 0:
                self._scratch += bytearray(missing)
        start = HEADER.size + header.table_length
        if self._filled < start:
            return
        scratch = memoryview(self._scratch)
        extra = self._filled - start
        if extra > header.payload_length:
            raise BadFrame("the reply goes on after its end")
        if header.kind is Kind.ANSWER:
            table = scratch[HEADER.size : start]
            self.entries = unpack_table(table, header.tensors, header.payload_length)
            places = self._places(self.entries) if self._places else None
        else:
            places = None
        if places is None:
            self._grown = bytearray(scratch[start : self._filled])
            self._grow()
        else:
            self._place(places, scratch[start : self._filled])

    def _check(self, header: Header) -> None:
        if header.sequence != self.sequence:
            raise BadFrame(f"a reply to call {header.sequence} came for call {self.sequence}")
        if header.kind not in (self.expected, Kind.FAILURE):
            raise BadFrame(f"a reply of kind {header.kind.name} was not asked for")
        most = FAILURE_LENGTH if header.kind is Kind.FAILURE else self.most
        if header.payload_length > most:
            raise BadFrame(f"{header.payload_length} bytes of reply are more than {most}")
        if header.kind is not Kind.ANSWER and (header.table_length or header.tensors):
            raise BadFrame("a table came where there can be none")

    def _place(self, places: Sequence[memoryview], early: memoryview) -> None:
        """Copy the bytes that came with the head, then read the rest where it belongs."""
        self.tensors = list(places)
        for place in places:
            count = min(len(place), len(early))
            place[:count] = early[:count]
            early = early[count:]
            if count < len(place):
                self._wanted.append(place[count:])
        if not self._wanted:
            self._completed()

    def _grow(self) -> None:
        """Ask for more of a payload whose length only the worker's word gives."""
        assert self.header is not None
        assert self._grown is not None
        missing = self.header.payload_length - len(self._grown)
        if missing == 0:
            self._split()
            return
        piece = min(missing, max(GROWTH, len(self._grown)))
        self._wanted = [memoryview(bytearray(piece))]
        self._piece = self._wanted[0]

    def _completed(self) -> None:
        if self._grown is None:
            self.done = True
            return
        self._grown += self._piece
        self._grow()

    def _split(self) -> None:
        assert self.header is not None
        assert self._grown is not None
        if self.header.kind is Kind.FAILURE:
            self.failure = unpack_failure(self._grown)
        else:
            place = 0
            payload = memoryview(self._grown)
            for entry in self.entries:
                self.tensors.append(payload[place : place + entry.byte_length])
                place += entry.byte_length
        self.done = True
