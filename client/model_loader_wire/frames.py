"""The frames of the direct channel between a client and a worker; see ``proto/CHANNEL.md``.

A frame is a header of 48 bytes, a table with one entry per tensor, and the tensors' bytes one
after another. Both sides use this module; neither believes what it reads here before checking.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

from model_loader_wire.causes import MESSAGE_LENGTH, Cause, Failure, printable
from model_loader_wire.data_types import DataType
from model_loader_wire.description import RANK

MAGIC = b"MLC1"
HEADER = struct.Struct("<4sBBHQQQQIHxx")
"""Magic, kind, zero, signature, sequence, payload length, queue ns, compute ns, table, tensors."""

ENTRY = struct.Struct("<BBxxxxxxQ")
"""Data type, rank, byte length; the sizes (int64 each) follow."""

TABLE_LENGTH = 1 << 20
"""Longest table that a reader accepts, in bytes."""
FAILURE_LENGTH = 64 << 10
"""Longest payload of a FAILURE frame that a reader accepts, in bytes."""


class Kind(IntEnum):
    """What a frame is. Requests are below 128, replies above."""

    COMPUTE = 1
    RESET = 2
    ANSWER = 129
    DONE = 130
    FAILURE = 131


_KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}


class BadFrame(ValueError):
    """Bytes that are no frame, or not the one expected here."""


class Header(NamedTuple):
    """The fixed part of a frame."""

    kind: Kind
    signature: int
    sequence: int
    payload_length: int
    queue_ns: int
    compute_ns: int
    table_length: int
    tensors: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table says of one tensor."""

    data_type: DataType
    dimensions: tuple[int, ...]
    byte_length: int


def pack_header(
    kind: Kind,
    sequence: int,
    *,
    signature: int = 0,
    payload_length: int = 0,
    table_length: int = 0,
    tensors: int = 0,
    queue_ns: int = 0,
    compute_ns: int = 0,
) -> bytes:
    """Build a header; times are nanoseconds measured by the worker, zero in requests."""
    return HEADER.pack(
        MAGIC,
        kind,
        0,
        signature,
        sequence,
        payload_length,
        queue_ns,
        compute_ns,
        table_length,
        tensors,
    )


def unpack_header(data: bytes | bytearray | memoryview) -> Header:
    """Read a header from the first 48 bytes; raises BadFrame for anything else."""
    magic, kind, zero, signature, sequence, payload, queue_ns, compute_ns, table, tensors = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC or zero != 0:
        raise BadFrame("the bytes do not begin with a frame's header")
    if table > TABLE_LENGTH or tensors * ENTRY.size > table:
        raise BadFrame(f"a table of {table} bytes for {tensors} tensors is not possible")
    known = _KINDS.get(kind)
    if known is None:
        raise BadFrame(f"there is no frame of kind {kind}")
    return Header(known, signature, sequence, payload, queue_ns, compute_ns, table, tensors)


def pack_table(entries: Sequence[Entry]) -> bytes:
    """Build the table of tensors, in the signature's order."""
    parts = []
    for entry in entries:
        rank = len(entry.dimensions)
        parts.append(ENTRY.pack(entry.data_type, rank, entry.byte_length))
        parts.append(struct.pack(f"<{rank}q", *entry.dimensions))
    return b"".join(parts)


def unpack_table(
    data: bytes | bytearray | memoryview, tensors: int, payload_length: int
) -> tuple[Entry, ...]:
    """Read a table of `tensors` entries whose byte lengths add up to the payload's.

    Raises BadFrame for any other table: wrong length, unknown type, impossible rank or size.
    """
    entries = []
    place = 0
    try:
        for _ in range(tensors):
            code, rank, byte_length = ENTRY.unpack_from(data, place)
            place += ENTRY.size
            if rank > RANK:
                raise BadFrame(f"a tensor of rank {rank} is above {RANK}")
            dimensions = struct.unpack_from(f"<{rank}q", data, place)
            place += 8 * rank
            data_type = DataType(code)
            if any(size < 0 for size in dimensions):
                raise BadFrame(f"{dimensions} are no dimensions")
            size = data_type.element_size
            if size is not None and prod(dimensions) * size != byte_length:
                raise BadFrame(f"{byte_length} bytes do not fit {dimensions} {data_type.api_name}")
            entries.append(Entry(data_type, dimensions, byte_length))
    except struct.error:
        raise BadFrame("the table of tensors is cut short") from None
    except ValueError as error:
        raise BadFrame(str(error)) from None
    if place != len(data):
        raise BadFrame("the table of tensors has bytes left over")
    if sum(entry.byte_length for entry in entries) != payload_length:
        raise BadFrame("the tensors' lengths do not add up to the payload's")
    return tuple(entries)


def pack_failure(failure: Failure) -> bytes:
    """Build the payload of a FAILURE frame."""
    values = {
        "cause": failure.cause.value,
        "message": failure.message[:MESSAGE_LENGTH],
        "limit": failure.limit,
        "value": failure.value,
        "maximum": failure.maximum,
    }
    return json.dumps(values).encode()


def unpack_failure(payload: bytes | bytearray | memoryview) -> Failure:
    """Read a worker's failure; text is escaped and capped. Raises BadFrame if it is none."""
    try:
        return failure_from_values(json.loads(bytes(payload)))
    except (ValueError, RecursionError):
        raise BadFrame("the worker's failure report cannot be read") from None


def failure_from_values(values: Any) -> Failure:
    """Read a worker's failure from its JSON object; raises ValueError for any other value."""
    match values:
        case {
            "cause": str(cause),
            "message": str(message),
            "limit": str(limit),
            "value": int() | float() as value,
            "maximum": int() | float() as maximum,
        }:
            # As text first: a number that is too large for a float becomes infinite.
            numbers = float(str(value)), float(str(maximum))
            return Failure(Cause(cause), printable(message), printable(limit, 64), *numbers)
    raise ValueError("a failure is an object with texts and numbers")
