"""Frames of which every number may lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from struct import Struct, pack

from model_loader_wire.frames import Entry
from tests.fuzz.wire.damage import damaged, number

HEADER = Struct("<4sBBHQQQQIHH")
ENTRY = Struct("<BB6sQ")


@dataclass(slots=True)
class Row:
    """One entry of a table."""

    code: int
    dimensions: list[int]
    byte_length: int
    rank: int | None = None
    """The rank that is written; None: the true one."""

    def pack(self) -> bytes:
        """Write it."""
        rank = len(self.dimensions) if self.rank is None else self.rank
        sizes = b"".join(pack("<Q", size % 2**64) for size in self.dimensions)
        return ENTRY.pack(self.code, rank % 256, b"", self.byte_length % 2**64) + sizes


@dataclass(slots=True)
class Draft:
    """A frame; the lengths that are None are written as they are."""

    kind: int
    sequence: int
    rows: list[Row] = field(default_factory=list)
    payload: bytes = b""
    magic: bytes = b"MLC1"
    zero: int = 0
    signature: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    payload_length: int | None = None
    table_length: int | None = None
    tensors: int | None = None
    padding: int = 0

    @classmethod
    def of(cls, kind: int, sequence: int, entries: Sequence[Entry], payload: bytes) -> Draft:
        """Draft a true frame."""
        rows = [
            Row(int(entry.data_type), list(entry.dimensions), entry.byte_length)
            for entry in entries
        ]
        return cls(kind, sequence, rows, payload)

    def pack(self) -> bytes:
        """Write it, true or not."""
        table = b"".join(row.pack() for row in self.rows)
        head = HEADER.pack(
            self.magic,
            self.kind,
            self.zero,
            self.signature,
            self.sequence,
            len(self.payload) if self.payload_length is None else self.payload_length,
            self.queue_ns,
            self.compute_ns,
            len(table) if self.table_length is None else self.table_length,
            len(self.rows) if self.tensors is None else self.tensors,
            self.padding,
        )
        return head + table + self.payload


def mutated(draft: Draft, random: Random) -> bytes:
    """Write the frame with one to three lies, or damaged as bytes; the draft stays as it is."""
    if random.random() < 0.25:
        return damaged(draft.pack(), random)
    rows = [replace(row, dimensions=list(row.dimensions)) for row in draft.rows]
    draft = replace(draft, rows=rows)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_LIES)(draft, random)
    return draft.pack()


def _header(draft: Draft, random: Random) -> None:
    name, bits = random.choice(_FIELDS)
    setattr(draft, name, number(random, 1 << bits))


def _kind(draft: Draft, random: Random) -> None:
    draft.kind = random.choice((0, 1, 2, 3, 127, 128, 129, 130, 131, 132, 255))


def _sequence(draft: Draft, random: Random) -> None:
    draft.sequence = (draft.sequence + random.choice((-2, -1, 1, 2, 2**32, 2**63))) % 2**64


def _row(draft: Draft, random: Random) -> None:
    if not draft.rows:
        return
    row = random.choice(draft.rows)
    match random.randrange(5):
        case 0:
            row.code = random.choice((*range(15), 128, 255))
        case 1:
            row.rank = random.choice((*range(5), 31, 32, 33, 64, 255))
        case 2:
            row.byte_length = (row.byte_length + random.choice((-1, 1, 4, -4, 2**32))) % 2**64
        case 3 if row.dimensions:
            row.dimensions[random.randrange(len(row.dimensions))] = number(random)
        case _:
            row.dimensions = random.choice(
                (
                    *([], [0], [1], [2**62, 4], [2**63 - 1] * 3, [-1], [2**32, 2**32]),
                    *([0, 2**62, 2**62], [1] * 32, [1] * 33, [2] * 32, row.dimensions[::-1]),
                )
            )[:]


def _consistent(draft: Draft, random: Random) -> None:
    """Other dimensions, and the bytes that belong to them."""
    if not draft.rows:
        return
    row = random.choice(draft.rows)
    element = max(1, row.byte_length // max(1, _product(row.dimensions)))
    row.dimensions = [random.randrange(5) for _ in range(random.randrange(4))]
    row.byte_length = element * _product(row.dimensions)
    draft.payload = random.randbytes(sum(row.byte_length for row in draft.rows) % (1 << 16))


def _rows(draft: Draft, random: Random) -> None:
    match random.randrange(4):
        case 0 if draft.rows:
            draft.rows.pop(random.randrange(len(draft.rows)))
        case 1 if draft.rows:
            draft.rows += [random.choice(draft.rows)] * random.choice((1, 3, 1000))
        case 2:
            random.shuffle(draft.rows)
        case _:
            draft.rows.append(Row(random.randrange(14), [], 0))


def _payload(draft: Draft, random: Random) -> None:
    draft.payload_length = len(draft.payload)
    draft.payload = damaged(draft.payload, random)
    if random.random() < 0.5:
        draft.payload_length = len(draft.payload)


def _trailing(draft: Draft, random: Random) -> None:
    draft.payload_length = len(draft.payload)
    draft.payload += random.choice((b"\0", b"MLC1", random.randbytes(64), bytes(5000)))


_FIELDS = (
    *(("zero", 8), ("signature", 16), ("sequence", 64), ("payload_length", 64)),
    *(("payload_length", 16), ("table_length", 32), ("table_length", 8), ("tensors", 16)),
    *(("queue_ns", 64), ("compute_ns", 64), ("padding", 16)),
)
_LIES: tuple[Callable[[Draft, Random], None], ...] = (
    *(_header, _header, _kind, _sequence, _row, _row, _consistent, _rows, _payload, _trailing),
)


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
