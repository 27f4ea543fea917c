"""The exchange: any split, any interruption, any rubbish."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_loader_wire.buffers import byte_view
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import FIRST_READ, GROWTH, Exchange, KnownTable
from model_loader_wire.frames import (
    HEADER,
    BadFrame,
    Entry,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_header,
)

SIZED = [item for item in DataType if item.element_size is not None]

entries = st.builds(
    lambda data_type, dimensions, length: Entry(
        data_type,
        tuple(dimensions),
        _size(dimensions) * data_type.element_size if data_type.element_size else length,
    ),
    st.sampled_from(DataType),
    st.lists(st.integers(0, 6), max_size=4),
    st.integers(0, 300),
)


def _size(dimensions: Sequence[int]) -> int:
    count = 1
    for size in dimensions:
        count *= size
    return count


def answer(sequence: int, table: Sequence[Entry], kind: Kind = Kind.ANSWER) -> bytes:
    """Build a reply whose payload counts upwards."""
    packed = pack_table(table)
    length = sum(entry.byte_length for entry in table)
    head = pack_header(
        kind, sequence, payload_length=length, table_length=len(packed), tensors=len(table)
    )
    return head + packed + payload_of(length)


def payload_of(length: int) -> bytes:
    """Give bytes that differ from their neighbours."""
    return bytes(place % 251 for place in range(length))


def feed(exchange: Exchange, data: bytes, pieces: Sequence[int]) -> bytes:
    """Give the exchange a reply in pieces of these sizes; returns what it did not take."""
    turn = 0
    while data and not exchange.done:
        space = exchange.space()
        assert len(space) > 0
        count = min(len(space), len(data), max(1, pieces[turn % len(pieces)]))
        turn += 1
        space[:count] = data[:count]
        data = data[count:]
        exchange.received(count)
    return data


@given(st.lists(entries, max_size=6), st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_reply_in_any_pieces(table: list[Entry], pieces: list[int]) -> None:
    exchange = Exchange(Kind.COMPUTE, 9, most=1 << 20)
    assert feed(exchange, answer(9, table), pieces) == b""
    assert exchange.done
    assert exchange.entries == tuple(table)
    assert [len(tensor) for tensor in exchange.tensors] == [item.byte_length for item in table]
    payload = payload_of(sum(item.byte_length for item in table))
    assert b"".join(exchange.tensors) == payload


@given(st.lists(entries, max_size=6), st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_reply_into_given_places(table: list[Entry], pieces: list[int]) -> None:
    packed = pack_table(table)
    length = sum(entry.byte_length for entry in table)
    asked = []
    memory = [bytearray(entry.byte_length) for entry in table]

    def places(came: tuple[Entry, ...]) -> list[memoryview]:
        asked.append(came)
        return [memoryview(part) for part in memory]

    known = KnownTable(packed, tuple(table), length)
    exchange = Exchange(Kind.COMPUTE, 9, places=places, known=known, most=length)
    feed(exchange, answer(9, table), pieces)
    assert exchange.done
    assert asked == [tuple(table)]
    assert asked[0] is known.entries
    assert b"".join(memory) == payload_of(length)


@given(
    st.lists(entries, min_size=1, max_size=4),
    st.lists(st.integers(1, 100), min_size=1, max_size=5),
    st.integers(0, 12),
)
def test_abandoned_reply_leaves_the_callers_memory_alone(
    table: list[Entry], pieces: list[int], after: int
) -> None:
    memory = [bytearray(entry.byte_length) for entry in table]
    exchange = Exchange(
        Kind.COMPUTE, 1, places=lambda _: [memoryview(part) for part in memory], most=1 << 20
    )
    data = answer(1, table)
    for turn in range(after):
        if exchange.done:
            break
        space = exchange.space()
        count = min(len(space), len(data), pieces[turn % len(pieces)])
        space[:count] = data[:count]
        data = data[count:]
        exchange.received(count)
    exchange.abandon()
    before = [bytes(part) for part in memory]
    feed(exchange, data, pieces)
    assert exchange.done
    assert [bytes(part) for part in memory] == before


@given(st.binary(max_size=400), st.lists(st.integers(1, 60), min_size=1, max_size=5))
@example(b"MLC1" + bytes(44), [48])
def test_rubbish_raises_bad_frame_and_nothing_else(data: bytes, pieces: list[int]) -> None:
    exchange = Exchange(Kind.COMPUTE, 1, most=1 << 20)
    try:
        feed(exchange, data, pieces)
    except BadFrame:
        return
    assert not exchange.done


@given(
    st.lists(entries, max_size=4),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([Kind.ANSWER, Kind.FAILURE, Kind.DONE, Kind.COMPUTE]),
)
def test_damaged_reply_raises_bad_frame_or_is_one(
    table: list[Entry], damage: list[tuple[int, int]], kind: Kind
) -> None:
    data = bytearray(answer(1, table, kind))
    for place, value in damage:
        data[place % len(data)] = value
    exchange = Exchange(Kind.COMPUTE, 1, most=1 << 16)
    try:
        feed(exchange, bytes(data), [37])
    except BadFrame:
        return
    if exchange.done and exchange.failure is None:
        assert sum(map(len, exchange.tensors)) <= 1 << 16


def test_buffers_grow_with_the_bytes_received() -> None:
    entry = Entry(DataType.UINT8, (1 << 40,), 1 << 40)
    table = pack_table([entry])
    head = pack_header(Kind.ANSWER, 1, payload_length=1 << 40, table_length=len(table), tensors=1)
    exchange = Exchange(Kind.COMPUTE, 1, most=1 << 41)
    feed(exchange, head + table, [1000])
    got = 0
    for _ in range(40):
        space = exchange.space()
        assert len(space) <= max(GROWTH, got)
        count = min(len(space), 1 << 19)
        exchange.received(count)
        got += count
    assert not exchange.done


def test_table_longer_than_the_first_read() -> None:
    table = [Entry(DataType.INT8, (1, 1, 1), 1)] * 1000
    data = answer(3, table)
    assert len(data) > 2 * FIRST_READ
    exchange = Exchange(Kind.COMPUTE, 3, most=1000)
    feed(exchange, data, [5000])
    assert exchange.done
    assert len(exchange.tensors) == 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (answer(2, []), "reply to call 2 came for call 1"),
        (pack_header(Kind.DONE, 1), "kind DONE"),
        (pack_header(Kind.RESET, 1), "kind RESET"),
        (answer(1, []) + b"x", "goes on after its end"),
        (answer(1, [Entry(DataType.INT8, (101,), 101)]), "more than 100"),
        (pack_header(Kind.FAILURE, 1, payload_length=1 << 20), "more than"),
        (pack_header(Kind.FAILURE, 1, table_length=16, tensors=1) + bytes(16), "table"),
        (pack_header(Kind.ANSWER, 1, table_length=1 << 21), "not possible"),
        (b"GET / HTTP/1.1\r\n".ljust(60), "header"),
    ],
)
def test_replies_that_are_refused(data: bytes, message: str) -> None:
    exchange = Exchange(Kind.COMPUTE, 1, most=100)
    with pytest.raises(BadFrame, match=message):
        feed(exchange, data, [1000])


def test_end_of_the_channel_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame, match="ended"):
        Exchange(Kind.COMPUTE, 1).received(0)


def test_places_of_another_size_are_a_bad_frame() -> None:
    exchange = Exchange(Kind.COMPUTE, 1, places=lambda _: [memoryview(bytearray(7))], most=100)
    with pytest.raises(BadFrame, match="8 bytes came for tensors of 7"):
        feed(exchange, answer(1, [Entry(DataType.INT64, (), 8)]), [100])


def test_failure_and_done() -> None:
    payload = pack_failure(Failure(Cause.FAILED, "it \x1b[0m broke"))
    exchange = Exchange(Kind.COMPUTE, 1)
    feed(exchange, pack_header(Kind.FAILURE, 1, payload_length=len(payload)) + payload, [7])
    assert exchange.failure == Failure(Cause.FAILED, "it \\x1b[0m broke")
    reset = Exchange(Kind.RESET, 2)
    feed(reset, pack_header(Kind.DONE, 2), [7])
    assert reset.done
    assert reset.failure is None


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_request_in_any_pieces(payload: list[bytes], pieces: list[int]) -> None:
    table = b"t" * 16 * len(payload)
    exchange = Exchange(Kind.COMPUTE, 5, signature=3, table=table, payload=payload)
    whole = b"".join(bytes(byte_view(part)) for part in exchange.outgoing)
    header = unpack_header(whole)
    assert (header.kind, header.sequence, header.signature) == (Kind.COMPUTE, 5, 3)
    assert (header.tensors, header.table_length) == (len(payload), len(table))
    assert header.payload_length == sum(map(len, payload))
    assert whole[HEADER.size :] == table + b"".join(payload)
    assert exchange.unsent == len(whole)
    gone = b""
    turn = 0
    while exchange.unsent:
        left = b"".join(bytes(part) for part in exchange.outgoing)
        assert gone + left == whole
        count = min(len(left), pieces[turn % len(pieces)])
        turn += 1
        gone += left[:count]
        exchange.sent(count)
    assert gone == whole


def test_abandoned_request_no_longer_needs_the_callers_memory() -> None:
    memory = bytearray(b"question")
    exchange = Exchange(Kind.COMPUTE, 1, payload=[memory])
    exchange.sent(HEADER.size + 2)
    exchange.abandon()
    memory[:] = b"nonsense"
    assert b"".join(exchange.outgoing) == b"estion"


def test_every_step_may_be_done_again() -> None:
    """An interruption may come after the log was written and before it was read."""
    data = answer(1, [Entry(DataType.INT8, (40_000,), 40_000)])
    exchange = Exchange(Kind.COMPUTE, 1, most=1 << 20)
    while not exchange.done:
        space = exchange.space()
        count = min(len(space), 7_000, len(data))
        space[:count] = data[:count]
        data = data[count:]
        exchange.received_counts.append(count)  # as if interrupted here
        if data:
            assert len(exchange.space()) > 0
        exchange.advance()
        exchange.advance()
    assert bytes(exchange.tensors[0]) == payload_of(40_000)


def test_log_stays_short() -> None:
    data = answer(1, [Entry(DataType.INT8, (3000,), 3000)])
    exchange = Exchange(Kind.COMPUTE, 1, most=1 << 20)
    feed(exchange, data, [1])
    assert exchange.done
    assert len(exchange.received_counts) < 100
    assert sum(exchange.received_counts) == len(data)
