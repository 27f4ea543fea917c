"""What a call returns, however its answer comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_loader._answer import Answer
from model_loader._plan import Plan
from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription, TensorDescription
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Entry, Kind, pack_header, pack_table
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.steady_exchange import SteadyExchange

TENSOR = TensorDescription("x", DataType.FLOAT32, (2,), 8)
VALUES = np.array([3, 4], np.float32)
RESERVED = 2
"""The first byte of an entry that has no meaning, and is not looked at."""


def reply(reserved: int) -> bytes:
    """An answer whose table is right, but for a byte without a meaning."""
    table = bytearray(pack_table([Entry(DataType.FLOAT32, (2,), 8)]))
    table[RESERVED] = reserved
    header = pack_header(Kind.ANSWER, 1, payload_length=8, table_length=len(table), tensors=1)
    return header + table + VALUES.tobytes()


def take(exchange: Exchange, data: bytes) -> None:
    """Read the reply one space at a time, as the asynchronous channel does."""
    while not exchange.done:
        space = exchange.space()
        count = min(len(space), len(data))
        space[:count], data = data[:count], data[count:]
        exchange.received(count)


@pytest.mark.parametrize("reserved", [0, 0x80])
@pytest.mark.parametrize("given", [False, True])
def test_the_bytes_that_came_are_the_answer(reserved: int, given: bool) -> None:
    plan = Plan(0, SignatureDescription("", (TENSOR,), (TENSOR,)), DEFAULT_LIMITS)
    outputs: Any = np.zeros(2, np.float32) if given else None
    answer = Answer(plan, True, outputs)
    exchange = answer.exchange(plan.encode(np.ones(2, np.float32), True), 1)
    assert isinstance(exchange, SteadyExchange)
    take(exchange, reply(reserved))
    result = answer.result(exchange.entries, exchange.tensors)
    np.testing.assert_array_equal(outputs if given else result, VALUES)
