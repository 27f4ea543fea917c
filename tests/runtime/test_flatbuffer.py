"""The reader follows no offset out of the file, and stops when there is too much to read."""

from __future__ import annotations

import struct

import pytest

from loader_service.runtime import flatbuffer, schema
from loader_service.runtime.flatbuffer import FlatBuffer, MalformedModel, TableReader
from loader_service.writer import small
from loader_service.writer.encode import encode


def _root(data: bytes, **limits: int) -> TableReader:
    return FlatBuffer(data, "model", **limits).root(schema.MODEL, schema.FILE_IDENTIFIER)


def _model(**values: object) -> bytes:
    return encode(schema.MODEL, values, schema.FILE_IDENTIFIER)


def test_it_reads_what_the_writer_wrote() -> None:
    model = _root(small.add(2.5))
    assert model.integer("version") == 3
    assert model.text("description") == "adds a constant"
    (graph,) = model.children("subgraphs")
    assert [tensor.text("name") for tensor in graph.children("tensors")] == ["x", "addend", "y"]
    assert graph.integers("inputs") == (0,)
    constant = graph.element("tensors", 1)
    buffer = model.element("buffers", constant.integer("buffer"))
    assert struct.unpack("<f", buffer.raw("data", 100)) == (2.5,)


def test_absent_fields_have_their_defaults() -> None:
    model = _root(_model(operator_codes=[{}]))
    assert (model.integer("version"), model.text("description")) == (0, "")
    assert model.length("subgraphs") == 0
    assert list(model.children("subgraphs")) == []
    (code,) = model.children("operator_codes")
    assert code.integer("version") == 1


@pytest.mark.parametrize(
    ("data", "place", "rule"),
    [
        (b"", "model", "0 bytes are too few"),
        (b"\x08\0\0\0TFL4\0\0\0\0", "model", "no file identifier TFL3"),
        (b"\xff\xff\xff\x7fTFL3", "model", "offset leads to byte 2147483647 of 8"),
        (b"\0\0\0\0TFL3", "model", "offset leads to byte 0"),
        (b"\x08\0\0\0TFL3\xff\xff\xff\x7f", "model", "fields are listed at byte -"),
        (b"\x08\0\0\0TFL3\x02\0\0\0", "model", "bytes cannot list"),
        (b"\x08\0\0\0TFL3\x08\0\0\0", "model", "the table's 0 bytes"),
    ],
)
def test_broken_beginnings_are_named(data: bytes, place: str, rule: str) -> None:
    with pytest.raises(MalformedModel, match=rule) as raised:
        _root(data)
    assert raised.value.place == place


def test_a_vector_longer_than_the_file_is_refused() -> None:
    data = _model(description="x" * 40)
    length = struct.pack("<I", 40)
    broken = data.replace(length + b"xxxx", struct.pack("<I", 2**32 - 1) + b"xxxx")
    assert broken != data
    with pytest.raises(MalformedModel, match="4294967295 elements do not fit") as raised:
        _root(broken).text("description")
    assert raised.value.place == "model.description"


def test_an_element_beyond_the_vector_is_refused() -> None:
    with pytest.raises(MalformedModel, match=r"subgraphs\[1\]: there are only 1"):
        _root(small.add()).element("subgraphs", 1)


def test_long_and_broken_text_is_cut_and_escaped() -> None:
    assert _root(_model(description="ä" * 5000)).text("description") == (
        "ä" * (flatbuffer.TEXT_LENGTH - 1) + "…"
    )
    broken = _model(description="name").replace(b"name", b"n\xffm\xfe")
    assert _root(broken).text("description") == "n\\xffm\\xfe"


def test_it_stops_after_so_many_elements() -> None:
    data = _model(operator_codes=[{}] * 100)
    assert len(list(_root(data, maximum_elements=101).children("operator_codes"))) == 100
    with pytest.raises(MalformedModel, match="too many elements"):
        list(_root(data, maximum_elements=100).children("operator_codes"))


def test_it_stops_after_so_much_text() -> None:
    data = _model(description="x" * 100)
    assert _root(data, maximum_text=100).text("description") == "x" * 100
    with pytest.raises(MalformedModel, match="too much text"):
        _root(data, maximum_text=99).text("description")


def test_asking_for_a_field_as_what_it_is_not_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match=r"Model\.version is a ScalarField"):
        _root(small.add()).text("version")
