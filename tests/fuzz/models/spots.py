"""Finds every number of a model file that says something, by the schema: where an edit would tell.

It reads as the verifier does, so it finds spots in files that the verifier's structure check takes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from loader_service.runtime.schema import MODEL, Field, ScalarField, Table, TextField
from loader_service.runtime.verifier.structure import Record, Span, Structure

SHORT_VECTOR = 16
"""Numbers of one vector that are spots; a longer one has the rest left alone."""

SMALL_CONSTANT = 64
"""Bytes of a constant whose numbers are spots: shapes, axes and indices are short, weights long."""


class Spot(NamedTuple):
    """A number in a file: its place, its `struct` code, and what it is."""

    position: int
    code: str
    name: str


class _Finding(Structure):
    """Notes the numbers of each table that is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.spots: list[Spot] = []

    def _table(self, table: Table, position: int, place: str) -> Record:
        record = super()._table(table, position, place)
        vtable = position - struct.unpack_from("<i", self.data, position)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        for field in table.fields.values():
            entry = vtable + 4 + 2 * field.slot
            if entry + 2 > vtable + size:
                continue
            offset = struct.unpack_from("<H", self.data, entry)[0]
            if offset:
                self._field(field, record, position + offset, entry, f"{place}.{field.name}")
        return record

    def _field(self, field: Field, record: Record, position: int, entry: int, name: str) -> None:
        note = self.spots.append
        # A field can be left out, or be another one's.
        note(Spot(entry, "<H", f"{name} (entry)"))
        if isinstance(field, ScalarField):
            note(Spot(position, field.scalar.value, name))
            return
        note(Spot(position, "<I", f"{name} (offset)"))
        target = position + struct.unpack_from("<I", self.data, position)[0]
        found = record[field.name]
        if isinstance(found, Span | list):
            note(Spot(target, "<I", f"{name} (length)"))
        if isinstance(found, Span) and not isinstance(field, TextField):
            self._numbers(found, name)

    def _numbers(self, span: Span, name: str) -> None:
        code = span.code
        if code == "B":
            if span.length > SMALL_CONSTANT or span.length % 4:
                return
            span = Span(span.start, span.length // 4, "i")
        width = struct.calcsize("<" + span.code)
        for index in range(min(span.length, SHORT_VECTOR)):
            place = span.start + index * width
            self.spots.append(Spot(place, "<" + span.code, f"{name}[{index}]"))


def spots(data: bytes) -> list[Spot]:
    """Return all spots of a model, in the order of the schema. Raises InvalidModel."""
    finding = _Finding(data)
    finding.root(MODEL)
    return finding.spots
