"""Frames, tables, failures, strings and descriptions: there and back, and never a wrong error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_loader_wire.causes import MESSAGE_LENGTH, Cause, Failure, printable
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    BadDescription,
    ModelDescription,
    SignatureDescription,
    TensorDescription,
    model_from_values,
    model_to_values,
    tensor_from_values,
)
from model_loader_wire.frames import (
    HEADER,
    BadFrame,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_failure,
    unpack_header,
    unpack_table,
)
from model_loader_wire.limits import DEFAULT_LIMITS, LimitRaised, Limits
from model_loader_wire.strings import BadStrings, pack_strings, unpack_strings
from tests.wire.test_exchange import entries

numbers = st.integers(0, 2**64 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "type", "dimensions", "bytes", "signatures", "inputs"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(Kind), st.integers(0, 65535), numbers, numbers, numbers, numbers)
def test_header_there_and_back(
    kind: Kind, signature: int, sequence: int, payload: int, queue: int, compute: int
) -> None:
    data = pack_header(
        kind,
        sequence,
        signature=signature,
        payload_length=payload,
        queue_ns=queue,
        compute_ns=compute,
        table_length=32,
        tensors=2,
    )
    assert len(data) == HEADER.size == 48
    assert unpack_header(data) == (kind, signature, sequence, payload, queue, compute, 32, 2)


@given(st.binary(min_size=48, max_size=48))
def test_header_of_rubbish(data: bytes) -> None:
    for tried in (data, b"MLC1" + data[4:], b"MLC1" + bytes([129, 0]) + data[6:]):
        try:
            unpack_header(tried)
        except BadFrame:
            continue


@given(st.lists(entries, max_size=8))
def test_table_there_and_back(table: list[Any]) -> None:
    length = sum(entry.byte_length for entry in table)
    assert unpack_table(pack_table(table), len(table), length) == tuple(table)
    with pytest.raises(BadFrame):
        unpack_table(pack_table(table), len(table), length + 1)
    with pytest.raises(BadFrame):
        unpack_table(pack_table(table) + b"\0", len(table), length)


@given(st.binary(max_size=200), st.integers(0, 10), st.integers(0, 1000))
def test_table_of_rubbish(data: bytes, tensors: int, length: int) -> None:
    try:
        table = unpack_table(data, tensors, length)
    except BadFrame:
        return
    assert len(pack_table(table)) == len(data)


@given(st.sampled_from(Cause), st.text(max_size=5000), st.floats(0, 1e12))
def test_failure_there_and_back(cause: Cause, message: str, value: float) -> None:
    failure = unpack_failure(pack_failure(Failure(cause, message, "memory_bytes", value, 5)))
    assert failure.cause is cause
    assert (failure.limit, failure.value, failure.maximum) == ("memory_bytes", value, 5)
    assert failure.message == printable(message[:MESSAGE_LENGTH])
    assert not failure.model_lost


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_failure_of_rubbish(data: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack_failure(data)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"cause": "failed"}',
        '{"cause": 1e999}',
        "[]",
        "null",
        '"failed"',
        '{"cause":"failed","message":[],"limit":{},"value":"1e999x","maximum":0}',
    ],
    ids=range(7),
)
def test_failure_of_odd_json(text: str) -> None:
    with pytest.raises(BadFrame):
        unpack_failure(text.encode())


@given(st.text(max_size=200))
def test_printable_text_holds_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(character in "\n\t" or character.isprintable() for character in shown)
    assert printable(shown) == shown
    assert len(printable(text, 10)) <= 10 * len("\\U0010ffff")


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_strings_there_and_back(values: list[bytes]) -> None:
    assert unpack_strings(pack_strings(values), len(values)) == values
    with pytest.raises(BadStrings):
        unpack_strings(pack_strings(values), len(values) + 1)


@given(st.binary(max_size=100), st.integers(0, 2**62))
def test_strings_of_rubbish(data: bytes, count: int) -> None:
    try:
        values = unpack_strings(data, count)
    except BadStrings:
        return
    assert len(values) == count
    assert sum(map(len, values)) <= len(data)


@given(json_values)
def test_description_of_rubbish(values: Any) -> None:
    with pytest.raises(BadDescription):
        model_from_values(values)
    with pytest.raises(BadDescription):
        model_from_values({"signatures": values, "runtime": "", "kernels": "", "note": ""})


@pytest.mark.parametrize(
    "dimensions", [[0, 2**62, 2**62], [2**62, None, 2**62], [2**63 - 1], [1] * 33]
)
def test_description_of_a_shape_that_no_array_can_have(dimensions: list[int | None]) -> None:
    sizes = [-1 if size is None else size for size in dimensions]
    length = 0 if 0 in sizes else None
    with pytest.raises(BadDescription, match=r"too large|more than 32"):
        tensor_from_values({"name": "x", "type": 6, "dimensions": sizes, "bytes": length})


def test_description_with_a_nest_for_a_number() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadDescription, match="list is no count"):
        tensor_from_values({"name": "x", "type": deep})


def test_description_there_and_back() -> None:
    model = ModelDescription(
        (
            SignatureDescription(
                "",
                (
                    TensorDescription("x", DataType.FLOAT32, (2, 3), 24),
                    TensorDescription("y", DataType.FLOAT32, (None, 3), None),
                    TensorDescription("z", DataType.STRING, None, None),
                ),
                (TensorDescription("s", DataType.INT8, (), 1),),
            ),
            SignatureDescription("other", (), ()),
        ),
        "runtime 1",
        "builtin",
        "why",
        2,
        keeps_state=True,
    )
    assert model_from_values(model_to_values(model)) == model


def test_processor_time_is_limited_in_whole_seconds() -> None:
    """The kernel takes no others, and a worker would end at its start."""
    assert Limits(compute_seconds=1.5, cpu_seconds=2).cpu_seconds == 2
    for value in (1.5, 2.0):
        with pytest.raises(TypeError, match="limit cpu_seconds must be int, not float"):
            Limits.from_values({"cpu_seconds": value})


def test_limits_can_only_be_lowered() -> None:
    lowered = DEFAULT_LIMITS.lowered_by(Limits(memory_bytes=5, cpu_seconds=7))
    assert lowered.memory_bytes == 5
    assert lowered.cpu_seconds == 7
    assert lowered.threads == DEFAULT_LIMITS.threads
    with pytest.raises(LimitRaised) as caught:
        DEFAULT_LIMITS.lowered_by(Limits(threads=3))
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == ("threads", 3, 2)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"memory_bytes": 0}, ValueError),
        ({"memory_bytes": -1}, ValueError),
        ({"memory_bytes": 1.5}, TypeError),
        ({"memory_bytes": True}, TypeError),
        ({"memory_bytes": "1"}, TypeError),
        ({"load_seconds": float("nan")}, ValueError),
        ({"load_seconds": float("inf")}, ValueError),
        ({"memory": 1}, ValueError),
    ],
)
def test_limits_that_cannot_be(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Limits.from_values(values)


def test_limits_there_and_back() -> None:
    limits = Limits(memory_bytes=5, load_seconds=0.5)
    assert limits.set_values() == {"memory_bytes": 5, "load_seconds": 0.5}
    assert Limits.from_values(limits.set_values()) == limits
