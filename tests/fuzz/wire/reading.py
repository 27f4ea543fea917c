"""What a reply is by the words of CHANNEL.md: a reader of its own, to hold the clients against.

It shares no code with the clients: whole streams, no I/O, no speed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from struct import unpack_from
from typing import NamedTuple

from model_loader_wire.description import TensorDescription

SIZES = {1: 8, 2: 8, 3: 8, 4: 4, 5: 4, 6: 4, 7: 2, 8: 2, 9: 2, 10: 1, 11: 1, 12: 1}
TYPES, STRING = range(14), 13
ANSWER, DONE, FAILURE = 129, 130, 131
CAUSES = {
    *("invalid-input", "unsupported", "limit", "out-of-memory", "failed", "invalid-model"),
    "internal",
}
"""What a worker may say of a call."""
LONGEST_TABLE, LONGEST_FAILURE = 1 << 20, 64 << 10


class Tensor(NamedTuple):
    """One output."""

    code: int
    dimensions: tuple[int, ...]
    data: bytes


class Reading(NamedTuple):
    """What a stream's beginning is."""

    what: str
    """``answer``, ``done``, ``failure``, ``violation`` or ``unfinished``."""
    length: int = 0
    """Bytes of the reply, where it is one."""
    tensors: tuple[Tensor, ...] = ()
    cause: str = ""


class _Violation(Exception):
    pass


class _Unfinished(Exception):
    pass


def read(
    stream: bytes, sequence: int, outputs: Sequence[TensorDescription] | None, most: int
) -> Reading:
    """Read the first reply of a stream; `outputs` are the declared ones, None after a RESET."""
    try:
        return _read(stream, sequence, outputs, most)
    except _Violation:
        return Reading("violation")
    except _Unfinished:
        return Reading("unfinished")


def _read(
    stream: bytes, sequence: int, outputs: Sequence[TensorDescription] | None, most: int
) -> Reading:
    if len(stream) < 48:
        raise _Unfinished
    magic, kind, zero = unpack_from("<4sBB", stream)
    number, payload_length = unpack_from("<QQ", stream, 8)
    table_length, count = unpack_from("<IH", stream, 40)
    _hold(magic == b"MLC1" and zero == 0 and number == sequence)
    _hold(kind in (FAILURE, DONE if outputs is None else ANSWER))
    _hold(16 * count <= table_length <= LONGEST_TABLE)
    if kind != ANSWER:
        _hold(table_length == 0 and count == 0)
    _hold(payload_length <= {ANSWER: most, DONE: 0, FAILURE: LONGEST_FAILURE}[kind])
    if len(stream) < 48 + table_length:
        raise _Unfinished
    rows = _rows(stream[48 : 48 + table_length], count, payload_length) if kind == ANSWER else []
    if kind == ANSWER:
        assert outputs is not None
        _hold(len(rows) == len(outputs))
        for (code, dimensions, length), declared in zip(rows, outputs, strict=True):
            _hold(code == declared.data_type)
            if declared.dimensions is not None:
                _hold(len(dimensions) == len(declared.dimensions))
                for size, known in zip(dimensions, declared.dimensions, strict=True):
                    _hold(known is None or size == known)
            _hold(declared.byte_length is None or declared.byte_length == length)
    length = 48 + table_length + payload_length
    if len(stream) < length:
        raise _Unfinished
    payload = stream[48 + table_length : length]
    if kind == DONE:
        return Reading("done", length)
    if kind == FAILURE:
        return Reading("failure", length, cause=_cause(payload))
    tensors, place = [], 0
    for code, dimensions, size in rows:
        data = payload[place : place + size]
        place += size
        if code == STRING:
            _hold_strings(data, prod(dimensions))
        tensors.append(Tensor(code, dimensions, data))
    return Reading("answer", length, tuple(tensors))


def _hold(condition: bool) -> None:
    if not condition:
        raise _Violation


def _rows(table: bytes, count: int, payload_length: int) -> list[tuple[int, tuple[int, ...], int]]:
    rows, place = [], 0
    for _ in range(count):
        _hold(place + 16 <= len(table))
        code, rank = table[place], table[place + 1]
        (length,) = unpack_from("<Q", table, place + 8)
        place += 16
        _hold(code in TYPES and rank <= 32 and place + 8 * rank <= len(table))
        dimensions = unpack_from(f"<{rank}q", table, place)
        place += 8 * rank
        _hold(min(dimensions, default=0) >= 0)
        _hold(code not in SIZES or prod(dimensions) * SIZES[code] == length)
        rows.append((code, dimensions, length))
    _hold(place == len(table))
    _hold(sum(length for _, _, length in rows) == payload_length)
    return rows


def _cause(payload: bytes) -> str:
    try:
        values = json.loads(payload)
        texts = [values[key] for key in ("cause", "message", "limit")]
        numbers = [values[key] for key in ("value", "maximum")]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise _Violation from None
    _hold(all(isinstance(text, str) for text in texts) and texts[0] in CAUSES)
    _hold(all(type(value) in (int, float) for value in numbers))
    return str(texts[0])


def _hold_strings(data: bytes, count: int) -> None:
    _hold(len(data) >= 4 * (count + 2))
    offsets = unpack_from(f"<{count + 2}i", data)
    _hold(offsets[0] == count and offsets[1] == 4 * (count + 2) and offsets[-1] == len(data))
    _hold(list(offsets[1:]) == sorted(offsets[1:]))
