"""The exchange whose answer is expected: in any pieces, and what is not the expected answer."""

from __future__ import annotations

import numpy as np
import pytest

from model_loader_wire.buffers import byte_view
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import Exchange, KnownTable
from model_loader_wire.frames import (
    BadFrame,
    Entry,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
)
from model_loader_wire.steady_exchange import SteadyExchange, pattern_of
from tests.wire.test_exchange import answer, feed, payload_of

LARGE = 20_000
PIECES = [[1], [40], [47, 1], [100, 3], [1 << 20]]


def table_of(*lengths: int) -> KnownTable:
    """Give a table of tensors of bytes."""
    entries = tuple(Entry(DataType.UINT8, (length,), length) for length in lengths)
    return KnownTable(pack_table(entries), entries, sum(lengths))


INPUT = table_of(6)
OUTPUTS = table_of(30, 0, LARGE)


class Call:
    """One exchange and the memory that it was given."""

    def __init__(self) -> None:
        self.targets = [np.zeros(entry.byte_length, np.uint8) for entry in OUTPUTS.entries]
        self.asked = 0
        self.exchange = SteadyExchange(
            pattern_of(0, INPUT, OUTPUTS, 1 << 20), 9, [b"abcdef"], self.targets, self.places
        )

    def places(self, entries: tuple[Entry, ...]) -> None:
        """Let the exchange find memory of its own."""
        self.asked += 1

    def fill(self, data: bytes, pieces: list[int]) -> bytes:
        """Give it a reply as a driver does, several spaces at a time; returns what is left."""
        turn = 0
        while data and not self.exchange.done:
            now = data[: pieces[turn % len(pieces)]]
            turn += 1
            taken = 0
            for space in self.exchange.spaces(64):
                view = byte_view(space)[: len(now) - taken]
                view[:] = now[taken : taken + len(view)]
                taken += len(view)
            data = data[taken:]
            self.exchange.received(taken)
        return data


def test_request_is_that_of_an_ordinary_exchange() -> None:
    call = Call()
    ordinary = Exchange(Kind.COMPUTE, 9, table=INPUT.table, payload=[b"abcdef"])
    assert b"".join(call.exchange.outgoing) == b"".join(ordinary.outgoing)
    assert call.exchange.unsent == ordinary.unsent
    for _ in range(call.exchange.unsent):
        call.exchange.sent(1)
        ordinary.sent(1)
        assert b"".join(call.exchange.outgoing) == b"".join(ordinary.outgoing)


@pytest.mark.parametrize("pieces", PIECES)
def test_expected_answer_is_read_in_place(pieces: list[int]) -> None:
    call = Call()
    assert call.fill(answer(9, OUTPUTS.entries), pieces) == b""
    exchange = call.exchange
    assert exchange.done
    assert exchange.entries == OUTPUTS.entries
    if pieces[0] > 100:
        assert call.asked == 0
        assert b"".join(target.tobytes() for target in call.targets) == payload_of(LARGE + 30)
    else:  # a beginning in pieces is looked at like any other reply
        assert b"".join(exchange.tensors) == payload_of(LARGE + 30)
    assert exchange.header is not None
    assert exchange.header.sequence == 9


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("lengths", [(1,), (30, 0, LARGE - 1), (30, 0, LARGE + 1), (60_000,)])
def test_another_answer_is_read_all_the_same(pieces: list[int], lengths: tuple[int, ...]) -> None:
    call = Call()
    entries = table_of(*lengths).entries
    assert call.fill(answer(9, entries), pieces) == b""
    assert call.exchange.done
    assert call.exchange.entries == entries
    assert b"".join(call.exchange.tensors) == payload_of(sum(lengths))


@pytest.mark.parametrize("pieces", PIECES)
def test_failure(pieces: list[int]) -> None:
    call = Call()
    failure = Failure(Cause.FAILED, "x" * 1000)
    payload = pack_failure(failure)
    head = pack_header(Kind.FAILURE, 9, payload_length=len(payload))
    assert call.fill(head + payload, pieces) == b""
    assert call.exchange.failure == failure


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (answer(8, OUTPUTS.entries), "a reply to call 8"),
        (answer(9, OUTPUTS.entries) + b"x", "goes on after its end"),
        (answer(9, table_of(2 << 20).entries), "are more than"),
        (bytes(100), "do not begin"),
        (pack_header(Kind.DONE, 9), "was not asked for"),
    ],
    ids=["an old one", "too long", "over the limit", "no frame", "of a reset"],
)
def test_reply_that_cannot_be(data: bytes, message: str) -> None:
    with pytest.raises(BadFrame, match=message):
        Call().fill(data, [1 << 20])


@pytest.mark.parametrize("before", [0, 1, 47, 48, 100, 130, 140, 10_000, LARGE])
def test_abandoned_exchange_lets_go_of_the_callers_memory(before: int) -> None:
    call = Call()
    whole = answer(9, OUTPUTS.entries)
    left = whole[before:]
    if before:
        assert call.fill(whole[:before], [1 << 20]) == b""
    call.exchange.abandon()
    for target in call.targets:
        target[:] = 0
    assert feed(call.exchange, left, [5000]) == b""
    assert call.exchange.done
    assert b"".join(call.exchange.tensors) == payload_of(LARGE + 30)
    assert not any(target.any() for target in call.targets)
