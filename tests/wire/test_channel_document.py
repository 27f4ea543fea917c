"""`proto/CHANNEL.md` says what the code does: its examples and its tables."""

from __future__ import annotations

import re
import struct

import pytest

from model_loader_wire.causes import MESSAGE_LENGTH, Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import RANK
from model_loader_wire.frames import (
    ENTRY,
    FAILURE_LENGTH,
    HEADER,
    TABLE_LENGTH,
    Entry,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_failure,
    unpack_header,
    unpack_table,
)
from model_loader_wire.strings import pack_strings, unpack_strings
from tests.shared_models import REPOSITORY

DOCUMENT = (REPOSITORY / "proto" / "CHANNEL.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```hex (\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"((?:[0-9a-f]{2} {1,2})+)(?: +(\S.*))?")
ENTRIES = (Entry(DataType.FLOAT32, (1, 2), 8),)
FAILED = Failure(Cause.FAILED, "no")
TEXT = [b"hi", b"", "né".encode()]


def examples() -> dict[str, bytes]:
    found = {}
    for name, text in BLOCK.findall(DOCUMENT):
        rows = [LINE.match(row) for row in text.splitlines()]
        found[name] = b"".join(bytes.fromhex(row[1]) for row in rows if row)
        assert all(rows), f"a line of {name} is no hex"
    return found


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table whose header row begins like that."""
    lines = DOCUMENT.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def compute(*values: float, **header: int) -> bytes:
    table = pack_table(ENTRIES)
    kind = Kind.ANSWER if header else Kind.COMPUTE
    head = pack_header(kind, 7, payload_length=8, table_length=len(table), tensors=1, **header)
    return head + table + struct.pack("<2f", *values)


def test_the_examples_are_what_the_code_writes() -> None:
    payload = pack_failure(FAILED)
    assert examples() == {
        "COMPUTE": compute(1.0, -2.0),
        "ANSWER": compute(2.0, -4.0, queue_ns=1500, compute_ns=20000),
        "RESET": pack_header(Kind.RESET, 8),
        "DONE": pack_header(Kind.DONE, 8),
        "FAILURE": pack_header(Kind.FAILURE, 9, payload_length=len(payload)) + payload,
        "STRINGS": pack_strings(TEXT),
    }


@pytest.mark.parametrize("name", [kind.name for kind in Kind])
def test_the_code_reads_the_examples(name: str) -> None:
    frame = examples()[name]
    header = unpack_header(frame[: HEADER.size])
    assert header.kind is Kind[name]
    start = HEADER.size + header.table_length
    assert len(frame) == start + header.payload_length
    if header.kind in (Kind.COMPUTE, Kind.ANSWER):
        table = frame[HEADER.size : start]
        assert unpack_table(table, header.tensors, header.payload_length) == ENTRIES
    if header.kind is Kind.FAILURE:
        assert unpack_failure(frame[start:]) == FAILED


def test_the_code_reads_the_strings() -> None:
    assert unpack_strings(examples()["STRINGS"], 3) == TEXT


def test_the_header_has_the_documented_fields() -> None:
    fields = [(int(row[0]), int(row[1])) for row in rows("| offset | size | field")]
    places = [offset for offset, _ in fields]
    assert places == [sum(size for _, size in fields[:index]) for index in range(len(fields))]
    assert sum(size for _, size in fields) == HEADER.size
    codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
    written = "4s" + "".join(codes[size] for _, size in fields[1:-1]) + "xx"
    assert HEADER.format == f"<{written}"


def test_an_entry_has_the_documented_size() -> None:
    assert ENTRY.size == 16
    assert ENTRY.unpack(bytes([6, 2, 1, 1, 1, 1, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0])) == (6, 2, 8)


def test_the_kinds_are_all_there() -> None:
    documented = {row[1]: int(row[0]) for row in rows("| kind | name")}
    assert documented == {kind.name: int(kind) for kind in Kind}


def test_the_data_types_are_all_there() -> None:
    documented = {
        row[1]: (int(row[0]), int(row[2]) if row[2].isdigit() else None)
        for row in rows("| code | type")
    }
    assert documented == {
        data_type.api_name: (int(data_type), data_type.element_size) for data_type in DataType
    }


def test_the_bounds_are_those_of_the_code() -> None:
    prose = " ".join(DOCUMENT.split())
    assert f"at most 1 MiB ({TABLE_LENGTH:,}) and at least {ENTRY.size} × `tensors`" in prose
    assert f"for a FAILURE at most 64 KiB ({FAILURE_LENGTH:,})" in prose
    assert f"text, at most {MESSAGE_LENGTH} characters" in prose
    assert f"a rank up to {RANK}," in prose
    assert f"number of dimensions, 0 to {RANK};" in prose
