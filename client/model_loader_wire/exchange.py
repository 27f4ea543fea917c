"""One request on the channel and its reply, as a state machine that does no I/O.

A driver (blocking, asyncio, or the broker's relay) sends ``outgoing`` and tells ``sent``, then
fills ``space()`` and tells ``received`` until ``done``. An exchange that was interrupted can be
carried on or drained by another driver call, because all progress is kept here.

A signal handler may raise between any two bytecodes, so progress is two logs of byte counts
(``sent_counts``, ``received_counts``) and everything else is worked out from their sums: each step
can be broken off anywhere and done again. A driver that may meet signals appends to the logs
within one C call (see ``model_loader._blocking_channel``) and then calls ``advance()``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from model_loader_wire.buffers import Buffer, byte_view, rest
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

FIRST_READ = 16 << 10
"""Bytes asked for at first: a small reply comes in one call, a large one is read in place."""
GROWTH = 1 << 20
"""A buffer that no declaration covers grows by at most this much ahead of the bytes received."""
LOG_LENGTH = 64
"""Counts kept in a log before they are added up into one."""

Places = Callable[[tuple[Entry, ...]], Sequence[memoryview] | None]
"""Checks an answer's table (raising BadFrame) and gives memory for its tensors, or None to let the
exchange grow buffers of its own. May be asked again after an interruption."""


class KnownTable(NamedTuple):
    """The table that an answer will have unless something is wrong, read beforehand."""

    table: bytes
    entries: tuple[Entry, ...]
    payload_length: int


class Exchange:
    """A request that was encoded and the reply to it, however far they have come."""

    is_ahead = False
    """Whether another reply may follow at once, so that not a byte more than this may be read."""
    is_wanted = False
    """Whether somebody waits for the reply who is not driving the exchange just now."""
    expected = Kind.ANSWER
    entries: tuple[Entry, ...] = ()
    tensors: Sequence[memoryview] = ()
    failure: Failure | None = None
    done = False
    _header: Header | None = None
    _targets: list[memoryview] | None = None
    _ends: Sequence[int] = ()
    _start = 0
    _grown = False

    def __init__(
        self,
        kind: Kind,
        sequence: int,
        *,
        signature: int = 0,
        table: bytes = b"",
        payload: Sequence[Buffer] = (),
        payload_length: int | None = None,
        places: Places | None = None,
        known: KnownTable | None = None,
        most: int = 0,
    ) -> None:
        """Encode a request; `most` is the largest payload that an answer may have, in bytes.

        `payload` holds C-contiguous buffers of any element type, one a tensor; `payload_length` is
        their length in bytes, for callers who know it.
        """
        if payload_length is None:
            payload_length = sum(memoryview(part).nbytes for part in payload)
        head = pack_header(
            kind,
            sequence,
            signature=signature,
            payload_length=payload_length,
            table_length=len(table),
            tensors=len(payload),
        )
        self.sequence = sequence
        if kind is Kind.RESET:
            self.expected = Kind.DONE
        self.sent_counts: list[int] = []
        self.received_counts: list[int] = []
        self._parts: list[Buffer] = [head + table, *payload] if payload_length else [head + table]
        self._length = len(head) + len(table) + payload_length
        self._places = places
        self._read_from(bytearray(FIRST_READ), known, most)

    def _read_from(self, scratch: bytearray, known: KnownTable | None, most: int) -> None:
        """Read the reply's head from this memory, whose beginning may have come already."""
        self.most = most
        self._known = known
        self._scratch = scratch

    @property
    def header(self) -> Header | None:
        """The reply's header, when the head has been read."""
        return self._header

    @property
    def is_certain(self) -> bool:
        """Whether as many bytes will come as ``spaces()`` has room for, so that a driver may wait
        for them all.
        """
        return self._targets is not None

    @property
    def unsent(self) -> int:
        """Bytes of the request that have not gone yet."""
        return self._length - sum(self.sent_counts)

    @property
    def outgoing(self) -> list[Buffer]:
        """What is left to send, in order."""
        counts = self.sent_counts
        if not counts:
            return self._parts
        gone = sum(counts)
        return rest(self._parts, gone) if gone < self._length else []

    def sent(self, count: int) -> None:
        """Note that the first `count` bytes of ``outgoing`` have gone."""
        self.sent_counts.append(count)

    def space(self) -> memoryview:
        """Memory for the next bytes of the reply; never empty while not ``done``."""
        got = sum(self.received_counts)
        targets = self._targets
        if targets is None:
            return memoryview(self._scratch)[got : self._head_end(got)]
        body = got - self._start
        index = bisect_right(self._ends, body)
        if index == len(self._ends):
            assert self._header is not None
            missing = self._header.payload_length - body
            piece = bytearray(min(missing, max(GROWTH, body)))
            targets[index:] = [memoryview(piece)]
            self._ends = [*self._ends, body + len(piece)]
        before = self._ends[index - 1] if index else 0
        return targets[index][body - before :]

    def _head_end(self, got: int) -> int:
        """How much of the memory for the head may be filled when so much has been read."""
        if not self.is_ahead:
            return len(self._scratch)
        if got < HEADER.size:
            return HEADER.size
        return HEADER.size + unpack_header(self._scratch).table_length

    def spaces(self, most: int) -> list[memoryview]:
        """``space()`` and what comes after it, at most that many pieces."""
        pieces = [self.space()]
        if self._targets is not None and not self._grown:
            index = bisect_right(self._ends, sum(self.received_counts) - self._start)
            pieces += self._targets[index + 1 : index + most]
        return pieces

    def received(self, count: int) -> None:
        """Note that `count` bytes were put into ``space()``; raises BadFrame for a bad reply."""
        if count <= 0:
            raise BadFrame("the channel ended")
        self.received_counts.append(count)
        self.advance()

    def advance(self) -> None:
        """Read what has come so far; raises BadFrame for a bad reply. May be called at any time."""
        counts = self.received_counts
        if len(counts) > LOG_LENGTH:
            counts[:] = [sum(counts)]
        if self.done or not counts:
            return
        got = sum(counts)
        if self._targets is None:
            self._read_head(got)
            if self._targets is None:
                return
        assert self._header is not None
        if got - self._start >= self._header.payload_length:
            self._complete(self._header)

    def abandon(self) -> None:
        """Let go of the caller's memory: nobody waits for this reply any more.

        What is unsent is copied, and what is still to come goes into memory of its own, because
        the caller may use its arrays again while the channel is drained.
        """
        if not self.done and self.unsent:
            self._parts = [bytes(byte_view(part)) for part in self._parts]
        self._places = None
        if self._targets is not None and not self._grown:
            self._targets = [memoryview(bytearray(len(target))) for target in self._targets]

    def _read_head(self, got: int) -> None:
        if got < HEADER.size:
            return
        header = unpack_header(self._scratch)
        self._check(header)
        start = HEADER.size + header.table_length
        if start > len(self._scratch):
            larger = bytearray(start)
            larger[:got] = memoryview(self._scratch)[:got]
            self._scratch = larger
        if got < start:
            return
        if got - start > header.payload_length:
            raise BadFrame("the reply goes on after its end")
        early = memoryview(self._scratch)[start:got]
        places = None
        if header.kind is Kind.ANSWER:
            self.entries = self._read_table(header, self._scratch[HEADER.size : start])
            if self._places is not None:
                places = self._places(self.entries)
        self._grown = places is None
        ends = []
        if places is None:
            targets = [memoryview(bytearray(early))]
            ends.append(len(early))
        else:
            targets = list(places)
            end = 0
            for target in targets:
                begin, end = end, end + len(target)
                ends.append(end)
                if end <= len(early):
                    target[:] = early[begin:end]
                elif begin < len(early):
                    target[: len(early) - begin] = early[begin:]
            if end != header.payload_length:
                raise BadFrame(f"{header.payload_length} bytes came for tensors of {end}")
        self._header, self._start, self._ends = header, start, ends
        self._targets = targets  # last: from here on the head counts as read

    def _check(self, header: Header) -> None:
        if header.sequence != self.sequence:
            raise BadFrame(f"a reply to call {header.sequence} came for call {self.sequence}")
        if header.kind is not self.expected and header.kind is not Kind.FAILURE:
            raise BadFrame(f"a reply of kind {header.kind.name} was not asked for")
        most = FAILURE_LENGTH if header.kind is Kind.FAILURE else self.most
        if header.payload_length > most:
            raise BadFrame(f"{header.payload_length} bytes of reply are more than {most}")
        if header.kind is not Kind.ANSWER and (header.table_length or header.tensors):
            raise BadFrame("a table came where there can be none")

    def _read_table(self, header: Header, table: bytearray) -> tuple[Entry, ...]:
        known = self._known
        if (
            known is not None
            and header.payload_length == known.payload_length
            and header.tensors == len(known.entries)
            and table == known.table
        ):
            return known.entries
        return unpack_table(table, header.tensors, header.payload_length)

    def _complete(self, header: Header) -> None:
        assert self._targets is not None
        if not self._grown:
            self.tensors = self._targets
        else:
            targets = self._targets
            payload = targets[0] if len(targets) == 1 else memoryview(bytearray().join(targets))
            if header.kind is Kind.FAILURE:
                self.failure = unpack_failure(payload)
            tensors = []
            place = 0
            for entry in self.entries:
                tensors.append(payload[place : place + entry.byte_length])
                place += entry.byte_length
            self.tensors = tensors
        self.done = True
