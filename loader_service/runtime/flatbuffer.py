"""A bounded reader of FlatBuffers by the tables of `schema`.

Nothing the file says is believed: each offset is checked against the file's size before it is
followed, each vector against the bytes behind it. The work is bounded too, because offsets may
point many times to one place: a reader gives up after `maximum_elements` and `maximum_text`. Tables
nest as deep as the schema does and no deeper, so nothing recurses. Alignment is not checked: bytes
are copied out, never read in place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

from .schema import (
    Field,
    ScalarField,
    Table,
    TableField,
    TableVectorField,
    TextField,
    VectorField,
)

MAXIMUM_ELEMENTS = 250_000
"""Tables and vector elements read from one file, in all."""

MAXIMUM_TEXT = 1 << 20
"""Characters of text read from one file, in all."""

TEXT_LENGTH = 1024
"""Characters of one text; a longer one is cut, and ends in an ellipsis."""

_OFFSET = struct.Struct("<I")
_SIGNED_OFFSET = struct.Struct("<i")
_VTABLE_HEAD = struct.Struct("<HH")
_VTABLE_ENTRY = struct.Struct("<H")
_IDENTIFIER = slice(4, 8)

_F = TypeVar("_F", bound=Field)


class MalformedModel(ValueError):
    """The file breaks a rule of its format; says at which place, and which rule."""

    def __init__(self, place: str, rule: str) -> None:
        super().__init__(f"{place}: {rule}")
        self.place = place
        self.rule = rule


class FlatBuffer:
    """The bytes of one FlatBuffer, and what may still be read from them."""

    def __init__(
        self,
        data: bytes,
        place: str,
        *,
        maximum_elements: int = MAXIMUM_ELEMENTS,
        maximum_text: int = MAXIMUM_TEXT,
    ) -> None:
        self.data = data
        self.place = place
        self._elements_left = maximum_elements
        self._text_left = maximum_text

    def root(self, table: Table, identifier: bytes) -> TableReader:
        """The root table. `MalformedModel` where the file identifier is another."""
        if len(self.data) < _IDENTIFIER.stop:
            raise MalformedModel(self.place, f"{len(self.data)} bytes are too few for a file")
        if self.data[_IDENTIFIER] != identifier:
            raise MalformedModel(self.place, f"has no file identifier {identifier.decode()}")
        return TableReader(self, table, self.offset(0, self.place), self.place)

    def offset(self, position: int, place: str) -> int:
        """The position that the offset at `position` points to, counted from itself."""
        target = position + self.unpack(_OFFSET, position, place)
        if not position < target < len(self.data):
            raise MalformedModel(place, f"offset leads to byte {target} of {len(self.data)}")
        return target

    def unpack(self, code: struct.Struct, position: int, place: str) -> int:
        """One integer of the format's own."""
        if not 0 <= position <= len(self.data) - code.size:
            raise MalformedModel(place, f"lies at byte {position} of {len(self.data)}")
        return int(code.unpack_from(self.data, position)[0])

    def vector(self, position: int, width: int, place: str) -> tuple[int, int]:
        """The start and the length of the vector at `position`, of elements `width` bytes wide."""
        length = self.unpack(_OFFSET, position, place)
        start = position + _OFFSET.size
        if length * width > len(self.data) - start:
            raise MalformedModel(place, f"{length} elements do not fit into the file")
        return start, length

    def spend(self, elements: int, place: str) -> None:
        """Count elements before they are read."""
        self._elements_left -= elements
        if self._elements_left < 0:
            raise MalformedModel(place, "the file has too many elements to read")

    def text(self, position: int, place: str) -> str:
        """The string at `position`, cut to `TEXT_LENGTH`; bytes that are not UTF-8 are escaped."""
        start, length = self.vector(position, 1, place)
        # No character takes more than four bytes.
        raw = self.data[start : start + min(length, 4 * TEXT_LENGTH + 4)]
        text = cut(raw.decode("utf-8", "backslashreplace"))
        self._text_left -= len(text)
        if self._text_left < 0:
            raise MalformedModel(place, "the file has too much text to read")
        return text


def cut(text: str, length: int = TEXT_LENGTH) -> str:
    """The text, or its beginning and an ellipsis, in no more than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


class TableReader:
    """One table in the file; gives its fields by name, defaults for those that are absent."""

    __slots__ = ("_buffer", "_entries", "_position", "_size", "_table", "_vtable", "place")

    def __init__(self, buffer: FlatBuffer, table: Table, position: int, place: str) -> None:
        buffer.spend(1, place)
        vtable = position - buffer.unpack(_SIGNED_OFFSET, position, place)
        data = buffer.data
        if not 0 <= vtable <= len(data) - _VTABLE_HEAD.size:
            raise MalformedModel(place, f"the table's fields are listed at byte {vtable}")
        vtable_size, size = _VTABLE_HEAD.unpack_from(data, vtable)
        if vtable_size < _VTABLE_HEAD.size or vtable_size % 2 or vtable + vtable_size > len(data):
            raise MalformedModel(place, f"{vtable_size} bytes cannot list a table's fields")
        if size < _SIGNED_OFFSET.size or position + size > len(data):
            raise MalformedModel(place, f"the table's {size} bytes do not fit into the file")
        self.place = place
        self._buffer = buffer
        self._table = table
        self._position = position
        self._size = size
        self._vtable = vtable
        self._entries = (vtable_size - _VTABLE_HEAD.size) // _VTABLE_ENTRY.size

    def number(self, name: str) -> int | float:
        """A scalar field's value, or its default."""
        field = self._field(name, ScalarField)
        position = self._locate(field, struct.calcsize(field.scalar.value))
        if position is None:
            return field.default
        value: int | float = struct.unpack_from(field.scalar.value, self._buffer.data, position)[0]
        return value

    def integer(self, name: str) -> int:
        """An integer or boolean field's value, or its default."""
        return int(self.number(name))

    def text(self, name: str) -> str:
        """A text, cut to `TEXT_LENGTH` characters; empty where it is absent."""
        position = self._follow(self._field(name, TextField))
        return "" if position is None else self._buffer.text(position, self._at(name))

    def has(self, name: str) -> bool:
        """Whether the file has the field."""
        return self._locate(self._table.fields[name], 1) is not None

    def length(self, name: str) -> int:
        """The number of elements of a vector; 0 where it is absent."""
        field = self._table.fields[name]
        width = struct.calcsize(field.scalar.value) if isinstance(field, VectorField) else 4
        position = self._follow(field)
        return 0 if position is None else self._buffer.vector(position, width, self._at(name))[1]

    def numbers(self, name: str, maximum: int | None = None) -> tuple[int | float, ...]:
        """A vector of numbers, or its first `maximum`; empty where it is absent."""
        field = self._field(name, VectorField)
        position = self._follow(field)
        if position is None:
            return ()
        code = field.scalar.value
        start, length = self._buffer.vector(position, struct.calcsize(code), self._at(name))
        count = length if maximum is None else min(length, maximum)
        self._buffer.spend(count, self._at(name))
        return struct.unpack_from(f"<{count}{code[-1]}", self._buffer.data, start)

    def integers(self, name: str, maximum: int | None = None) -> tuple[int, ...]:
        """A vector of integers, or its first `maximum`; empty where it is absent."""
        return tuple(int(value) for value in self.numbers(name, maximum))

    def raw(self, name: str, maximum: int) -> bytes:
        """The first `maximum` bytes of a vector of bytes; empty where it is absent."""
        position = self._follow(self._field(name, VectorField))
        if position is None:
            return b""
        start, length = self._buffer.vector(position, 1, self._at(name))
        return self._buffer.data[start : start + min(length, maximum)]

    def child(self, name: str) -> TableReader | None:
        """The nested table, where there is one."""
        field = self._field(name, TableField)
        position = self._follow(field)
        if position is None:
            return None
        return TableReader(self._buffer, field.table, position, self._at(name))

    def children(self, name: str) -> Iterator[TableReader]:
        """The tables of a vector, in order, each read when it is asked for."""
        for index in range(self.length(name)):
            yield self.element(name, index)

    def element(self, name: str, index: int) -> TableReader:
        """One table of a vector. `MalformedModel` where the vector is shorter."""
        field = self._field(name, TableVectorField)
        position = self._follow(field)
        place = f"{self._at(name)}[{index}]"
        start, length = (
            (0, 0) if position is None else self._buffer.vector(position, _OFFSET.size, place)
        )
        if not 0 <= index < length:
            raise MalformedModel(place, f"there are only {length}")
        target = self._buffer.offset(start + _OFFSET.size * index, place)
        return TableReader(self._buffer, field.table, target, place)

    def _at(self, name: str) -> str:
        return f"{self.place}.{name}"

    def _field(self, name: str, kind: type[_F]) -> _F:
        field = self._table.fields[name]
        if not isinstance(field, kind):
            raise TypeError(f"{self._table.name}.{name} is a {type(field).__name__}")
        return field

    def _locate(self, field: Field, width: int) -> int | None:
        """Where the field's `width` bytes are; None for an absent field."""
        if field.slot >= self._entries:
            return None
        entry = self._vtable + _VTABLE_HEAD.size + _VTABLE_ENTRY.size * field.slot
        offset = int(_VTABLE_ENTRY.unpack_from(self._buffer.data, entry)[0])
        if offset == 0:
            return None
        if not _SIGNED_OFFSET.size <= offset <= self._size - width:
            raise MalformedModel(self._at(field.name), f"lies outside its table of {self._size}")
        return self._position + offset

    def _follow(self, field: Field) -> int | None:
        """The position that an offset field points to; None for an absent field."""
        position = self._locate(field, _OFFSET.size)
        return None if position is None else self._buffer.offset(position, self._at(field.name))
