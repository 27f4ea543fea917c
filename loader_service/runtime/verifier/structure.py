"""Reads a whole FlatBuffer by the schema's tables, each offset checked before it is followed.

The pass is flat: a table's layout (its vtable) is checked once and compiled to one `struct`, and
each table of that layout is then read in one step. Nesting is as deep as the schema and no deeper.
Work is bounded by `MAXIMUM_TABLES` and `MAXIMUM_ELEMENTS`, because offsets may share targets.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from loader_service.runtime.failures import InvalidModel
from loader_service.runtime.schema import (
    BLOCKWISE_QUANTIZATION,
    CUSTOM_QUANTIZATION,
    FILE_IDENTIFIER,
    INT32_VECTOR,
    MULTI_AXIS_QUANTIZATION,
    UINT8_VECTOR,
    UINT16_VECTOR,
    Field,
    ScalarField,
    Table,
    TableField,
    TableVectorField,
    TextField,
    UnionField,
    VectorField,
)
from loader_service.runtime.schema_builtin_options import BUILTIN_OPTIONS, BUILTIN_OPTIONS_2

MAXIMUM_TABLES = 250_000
"""Tables read from one file; FlatBuffers' own verifier stops at a million."""

MAXIMUM_ELEMENTS = 4_000_000
"""Elements of vectors that are decoded from one file, constants excepted."""

_INDEX_VECTORS: Mapping[int, Table] = {1: INT32_VECTOR, 2: UINT16_VECTOR, 3: UINT8_VECTOR}
UNIONS: Mapping[str, Mapping[int, Table]] = {
    "details": {
        1: CUSTOM_QUANTIZATION,
        2: BLOCKWISE_QUANTIZATION,
        3: MULTI_AXIS_QUANTIZATION,
    },
    "array_segments": _INDEX_VECTORS,
    "array_indices": _INDEX_VECTORS,
    "builtin_options": BUILTIN_OPTIONS,
    "builtin_options_2": BUILTIN_OPTIONS_2,
}
"""By the union's field, the table of each member."""

Record = dict[str, Any]
"""One table: numbers by name, `Span` for text and vectors, records for tables, None if absent."""

_UNSIGNED = struct.Struct("<I")
_SIGNED = struct.Struct("<i")
_HEAD = struct.Struct("<HH")
_OFFSET_SIZE = 4
_IDENTIFIER = slice(4, 8)


class Span(NamedTuple):
    """A vector or a text: where its first element is, and how many there are."""

    start: int
    length: int
    code: str

    def __bool__(self) -> bool:
        return self.length > 0


class _Layout(NamedTuple):
    """What all tables with one vtable have in common."""

    read: struct.Struct
    names: tuple[str, ...]
    offsets: tuple[tuple[int, int, Field, str, int], ...]
    """Fields that are followed: place among the values read, place in the table, the field, and
    the code and width of a vector's numbers (width 0 for another kind)."""
    wide: tuple[int, ...]
    """Offsets of eight-byte numbers, whose alignment depends on the table's place."""
    size: int
    absent: Record


class Structure:
    """The bytes of one file, and how much may still be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._size = len(data)
        self._layouts: dict[tuple[int, str], _Layout] = {}
        self._tables_left = MAXIMUM_TABLES
        self._elements_left = MAXIMUM_ELEMENTS

    def root(self, table: Table) -> Record:
        """Read everything from the root on. Raises InvalidModel."""
        if self._size < 12 or self.data[_IDENTIFIER] != FILE_IDENTIFIER:
            raise InvalidModel("the bytes are no TensorFlow Lite model: no TFL3 at offset 4")
        return self._table(table, self._follow(0, "model"), "model")

    def integers(self, span: Span | None, place: str) -> tuple[int, ...]:
        """Decode a vector of integers; none for an absent one."""
        if span is None or not span.length:
            return ()
        self._elements_left -= span.length
        if self._elements_left < 0:
            raise InvalidModel(f"{place}: the file has more than {MAXIMUM_ELEMENTS} elements")
        return struct.unpack_from(f"<{span.length}{span.code}", self.data, span.start)

    def text(self, span: Span | None, length: int = 200) -> str:
        """Decode a text, cut to `length` bytes."""
        if span is None:
            return ""
        raw = self.data[span.start : span.start + min(span.length, length)]
        return raw.decode("utf-8", "backslashreplace")

    def _table(self, table: Table, position: int, place: str) -> Record:
        self._tables_left -= 1
        if self._tables_left < 0:
            raise InvalidModel(f"{place}: the file has more than {MAXIMUM_TABLES} tables")
        if position % 4 or position + 4 > self._size:
            raise InvalidModel(f"{place}: no table can lie at byte {position}")
        vtable = position - _SIGNED.unpack_from(self.data, position)[0]
        layout = self._layouts.get((vtable, table.name))
        if layout is None:
            layout = self._layout(table, vtable, place)
        if position + layout.size > self._size:
            raise InvalidModel(f"{place}: its {layout.size} bytes do not fit into the file")
        for offset in layout.wide:
            if (position + offset) % 8:
                raise InvalidModel(f"{place}: a number of eight bytes is not aligned")
        values = layout.read.unpack_from(self.data, position)
        record = layout.absent.copy()
        record.update(zip(layout.names, values, strict=True))
        for number, offset, field, code, width in layout.offsets:
            origin, step = position + offset, values[number]
            if step == 0 or origin + step + _OFFSET_SIZE > self._size:
                raise InvalidModel(f"{place}.{field.name}: its offset leads out of the file")
            if width:
                found = self._vector(origin + step, width, code, place, field)
            else:
                found = self._value(field, record, origin + step, place)
            record[field.name] = found
        return record

    def _value(self, field: Field, record: Record, target: int, place: str) -> Any:
        """Read what a field's offset leads to, other than a vector of numbers."""
        if isinstance(field, TextField):
            span = self._vector(target, 1, "B", place, field)
            end = span.start + span.length
            if end >= self._size or self.data[end]:
                raise InvalidModel(f"{place}.{field.name}: the text does not end in a zero byte")
            return span
        if isinstance(field, TableField):
            return self._table(field.table, target, f"{place}.{field.name}")
        if isinstance(field, TableVectorField):
            span = self._vector(target, _OFFSET_SIZE, "I", place, field)
            inner = f"{place}.{field.name}"
            table, read = field.table, self._table
            records = []
            for index, offset in enumerate(self.integers(span, inner)):
                at = span.start + 4 * index + offset
                if offset == 0 or at + _OFFSET_SIZE > self._size:
                    raise InvalidModel(f"{inner}[{index}]: its offset leads out of the file")
                records.append(read(table, at, f"{inner}[{index}]"))
            return records
        assert isinstance(field, UnionField)
        member = record[f"{field.name}_type"]
        chosen = UNIONS[field.name].get(member)
        if chosen is None:
            raise InvalidModel(f"{place}.{field.name}: there is no table of kind {member}")
        found = self._table(chosen, target, f"{place}.{field.name}")
        found[""] = chosen.name
        return found

    def _vector(self, target: int, width: int, code: str, place: str, field: Field) -> Span:
        """The vector at `target`, whose bytes are all in the file."""
        if target % 4:
            raise InvalidModel(f"{place}.{field.name}: the vector at byte {target} is not aligned")
        length = _UNSIGNED.unpack_from(self.data, target)[0]
        start = target + _OFFSET_SIZE
        if length * width > self._size - start:
            raise InvalidModel(f"{place}.{field.name}: {length} elements do not fit into the file")
        return Span(start, length, code)

    def _follow(self, position: int, place: str) -> int:
        target = position + int(_UNSIGNED.unpack_from(self.data, position)[0])
        if not _IDENTIFIER.stop <= target <= self._size - _OFFSET_SIZE:
            raise InvalidModel(f"the {place}'s root table is at {target}, outside its file")
        return target

    def _layout(self, table: Table, vtable: int, place: str) -> _Layout:
        """Check the vtable at that place for tables of this kind."""
        data = self.data
        if vtable % 2 or not 0 <= vtable <= self._size - _HEAD.size:
            raise InvalidModel(f"{place}: no list of fields can lie at byte {vtable}")
        vtable_size, size = _HEAD.unpack_from(data, vtable)
        if vtable_size < _HEAD.size or vtable_size % 2 or vtable + vtable_size > self._size:
            raise InvalidModel(f"{place}: {vtable_size} bytes cannot list a table's fields")
        if size < _OFFSET_SIZE:
            raise InvalidModel(f"{place}: a table cannot have {size} bytes")
        entries = struct.unpack_from(
            f"<{(vtable_size - _HEAD.size) // 2}H", data, vtable + _HEAD.size
        )
        absent: Record = {}
        present: list[tuple[int, str, Field]] = []
        for field in table.fields.values():
            offset = entries[field.slot] if field.slot < len(entries) else 0
            absent[field.name] = field.default if isinstance(field, ScalarField) else None
            if offset:
                code = field.scalar.value[-1] if isinstance(field, ScalarField) else "I"
                present.append((offset, code, field))
        present.sort(key=lambda item: item[0])
        return self._compiled(present, absent, size, place, (vtable, table.name))

    def _compiled(
        self,
        present: list[tuple[int, str, Field]],
        absent: Record,
        size: int,
        place: str,
        key: tuple[int, str],
    ) -> _Layout:
        """One `struct` for all fields, which lie inside the table, apart and aligned."""
        end, codes = _OFFSET_SIZE, ["<4x"]
        for offset, code, field in present:
            width = struct.calcsize("<" + code)
            if offset < end or offset + width > size or offset % min(width, 4):
                raise InvalidModel(
                    f"{place}.{field.name}: lies at {offset} of {size} bytes, over another field, "
                    "outside its table or not aligned"
                )
            codes.append(f"{offset - end}x{code}")
            end = offset + width
        layout = _Layout(
            struct.Struct("".join(codes)),
            tuple(field.name for _, _, field in present),
            tuple(
                (number, offset, field, *_element(field))
                for number, (offset, _, field) in enumerate(present)
                if not isinstance(field, ScalarField)
            ),
            tuple(offset for offset, code, _ in present if code in "qQd"),
            size,
            absent,
        )
        self._layouts[key] = layout
        return layout


def _element(field: Field) -> tuple[str, int]:
    """The code and width of a vector's numbers; width 0 for what is no such vector."""
    if not isinstance(field, VectorField):
        return "", 0
    code = field.scalar.value
    return code[-1], struct.calcsize(code)
