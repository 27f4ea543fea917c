"""Messages between broker and worker: what is one, and what is none."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader_service.worker.control import (
    HEAD,
    LONGEST_FROM_WORKER,
    MOST_COMMAS,
    BadMessage,
    Message,
    pack,
    pack_fields,
    unpack_fields,
    unpack_head,
)
from loader_service.worker.orders import Go, Spawn, Task

GO = Go(
    task=Task.LOAD,
    threads=2,
    data_bytes=None,
    memory_bytes=1 << 30,
    cpu_seconds=5,
    tensor_bytes=1,
    output_bytes=2,
    model_size=3,
)


def test_a_message_comes_back() -> None:
    data = pack_fields(Message.GO, {"a": [1, None]})
    kind, length = unpack_head(data[: HEAD.size], 100)
    assert (kind, length) == (Message.GO, len(data) - HEAD.size)
    assert unpack_fields(data[HEAD.size :]) == {"a": [1, None]}
    assert pack(Message.MODEL, memoryview(b"xyz")) == struct.pack("<IB", 3, 2) + b"xyz"


def test_an_unknown_kind_and_too_long_a_message_are_refused() -> None:
    with pytest.raises(BadMessage, match="kind 99"):
        unpack_head(struct.pack("<IB", 0, 99), 100)
    with pytest.raises(BadMessage, match="longer than 100"):
        unpack_head(struct.pack("<IB", 101, 16), 100)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"a": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_fields_that_are_no_object_are_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack_fields(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_a_bad_message(payload: bytes) -> None:
    with suppress(BadMessage):
        assert isinstance(unpack_fields(payload), dict)


@given(st.binary(min_size=5, max_size=5))
def test_any_head_is_a_message_or_a_bad_one(data: bytes) -> None:
    try:
        kind, length = unpack_head(data, 1000)
    except BadMessage:
        return
    assert length <= 1000
    assert data == struct.pack("<IB", length, kind)


def test_orders_come_back() -> None:
    for order in (GO, Spawn(None), Spawn(1234)):
        fields = json.loads(json.dumps(order.to_fields()))
        assert type(order).from_fields(fields) == order


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"a":[{}]},'])
def test_more_values_than_anybody_needs_are_not_even_read(unit: bytes) -> None:
    payload = b'{"a":[' + unit * (MOST_COMMAS + 1) + b"0]}"
    assert len(payload) <= LONGEST_FROM_WORKER
    with pytest.raises(BadMessage, match="too many"):
        unpack_fields(payload)
