"""What a worker owes for a stream of requests, by the words of CHANNEL.md and of its model.

Shares no code with the worker: whole streams, no I/O, no speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random
from struct import unpack_from
from typing import Any, NamedTuple

import numpy as np

from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from model_loader_wire.strings import BadStrings, pack_strings, unpack_strings
from tests.fuzz.wire.reading import LONGEST_TABLE, SIZES, STRING, TYPES

Array = np.ndarray[Any, Any]
TENSOR_BYTES = 1 << 20
"""The limit tensor_bytes of these models."""
FLOAT32, BOOL = 6, 12
COMPUTE, RESET = 1, 2
DTYPES = {FLOAT32: np.dtype("<f4"), BOOL: np.dtype("?")}


class Input(NamedTuple):
    """One declared input."""

    code: int
    dimensions: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A model, and what it answers."""

    content: bytes
    signatures: dict[int, tuple[Input, ...]]
    answer: Callable[[int, list[Any]], list[Array]]


class Due(NamedTuple):
    """What is due for one request."""

    what: str
    """``answer``, ``failure``, ``done``, or ``any`` of the first two."""
    sequence: int
    answer: list[Array]


class Owed(NamedTuple):
    """What is due for a stream."""

    replies: list[Due]
    ends: bool
    """Whether the worker hangs up after them, for bytes that are no request."""
    missing: int
    """Bytes that the last request lacks."""


def _where(signature: int, inputs: list[Any]) -> list[Array]:
    return [np.argwhere(inputs[0])]


def _arithmetic(signature: int, inputs: list[Any]) -> list[Array]:
    a, b = inputs
    return [a + b, a - b] if signature == 0 else [a + b if signature == 1 else a - b]


def _twice(only: Input) -> dict[int, tuple[Input, ...]]:
    """The default signature and a named one are the same."""
    return {0: (only,), 1: (only,)}


_PAIR = (Input(FLOAT32, (2,)), Input(FLOAT32, (2,)))
MODELS: dict[str, Asked] = {
    "add": Asked(small.add(), _twice(Input(FLOAT32, (1,))), lambda _, x: [x[0] + np.float32(1)]),
    "batch": Asked(
        small.dynamic_batch(4), _twice(Input(FLOAT32, (None, 4))), lambda _, x: [x[0] * 2]
    ),
    "pair": Asked(small.sum_and_difference(), {0: _PAIR}, _arithmetic),
    "where": Asked(small.dynamic_output(8), _twice(Input(BOOL, (8,))), _where),
    "strings": Asked(
        small.copy(TensorType.STRING, (4,)), _twice(Input(STRING, (4,))), lambda _, x: x
    ),
}


def true_inputs(asked: Asked, signature: int, random: Random) -> list[tuple[Input, bytes]]:
    """Make inputs that the model takes, with their true dimensions."""
    made = []
    for code, dimensions in asked.signatures[signature]:
        sizes = tuple(
            random.choice((1, 2, 7, 3000)) if size is None else size for size in dimensions
        )
        if code == STRING:
            data = pack_strings([random.randbytes(random.randrange(5)) for _ in range(4)])
        elif code == BOOL:
            data = bytes(random.randrange(2) for _ in range(prod(sizes)))
        else:
            data = np.array(random.choices((0, 1, -2.5, 1e9), k=prod(sizes)), "<f4").tobytes()
        made.append((Input(code, sizes), data))
    return made


def owed(asked: Asked, stream: bytes) -> Owed:
    """Say what is due for these bytes."""
    replies: list[Due] = []
    while stream:
        if len(stream) < 48:
            return Owed(replies, False, 48 - len(stream))
        magic, kind, zero, signature = unpack_from("<4sBBH", stream)
        sequence, payload_length = unpack_from("<QQ", stream, 8)
        table_length, count = unpack_from("<IH", stream, 40)
        if (
            magic != b"MLC1"
            or zero
            or kind not in (COMPUTE, RESET)
            or not 16 * count <= table_length <= LONGEST_TABLE
        ):
            return Owed(replies, True, 0)
        length = 48 + table_length + payload_length
        if len(stream) < length:
            return Owed(replies, False, length - len(stream))
        frame, stream = stream[:length], stream[length:]
        if kind == RESET:
            replies.append(Due("done", sequence, []))
        else:
            table = frame[48 : 48 + table_length]
            what, answer = _compute(asked, signature, count, table, frame[48 + table_length :])
            replies.append(Due(what, sequence, answer))
    return Owed(replies, False, 0)


def _compute(
    asked: Asked, signature: int, count: int, table: bytes, payload: bytes
) -> tuple[str, list[Array]]:
    declared = asked.signatures.get(signature)
    if declared is None or len(declared) != count or len(payload) > TENSOR_BYTES:
        return "failure", []
    inputs: list[Any] = []
    sure = True
    place = taken = 0
    for code, wanted in declared:
        if place + 16 > len(table):
            return "failure", []
        given, rank = table[place], table[place + 1]
        (length,) = unpack_from("<Q", table, place + 8)
        place += 16
        if given not in TYPES or given != code or rank > 32 or place + 8 * rank > len(table):
            return "failure", []
        sizes = unpack_from(f"<{rank}q", table, place)
        place += 8 * rank
        if len(sizes) != len(wanted) or not all(
            size >= 0 and known in (None, size) for size, known in zip(sizes, wanted, strict=True)
        ):
            return "failure", []
        if code in SIZES and prod(sizes) * SIZES[code] != length:
            return "failure", []
        data = payload[taken : taken + length]
        taken += length
        if len(data) != length:
            return "failure", []
        if code == STRING:
            try:
                inputs.append(np.array(unpack_strings(data, prod(sizes)), object).reshape(sizes))
            except BadStrings:
                return "failure", []
        else:
            # What a runtime makes of no elements, or of a bool that is neither, is its own matter.
            sure = sure and len(data) > 0 and (code != BOOL or set(data) <= {0, 1})
            inputs.append(np.frombuffer(data, DTYPES[code]).reshape(sizes))
    if place != len(table) or taken != len(payload):
        return "failure", []
    with np.errstate(all="ignore"):
        return ("answer", asked.answer(signature, inputs)) if sure else ("any", [])
