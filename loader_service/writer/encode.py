"""Encodes one table of the schema, given as nested mappings, into a FlatBuffer."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
from flatbuffers import number_types

from loader_service.runtime.schema import (
    Field,
    Scalar,
    ScalarField,
    Table,
    TableField,
    TableVectorField,
    TextField,
    UnionField,
    VectorField,
)

_FLAGS = {
    Scalar.BOOL: number_types.BoolFlags,
    Scalar.INT8: number_types.Int8Flags,
    Scalar.UINT8: number_types.Uint8Flags,
    Scalar.INT16: number_types.Int16Flags,
    Scalar.UINT16: number_types.Uint16Flags,
    Scalar.INT32: number_types.Int32Flags,
    Scalar.UINT32: number_types.Uint32Flags,
    Scalar.INT64: number_types.Int64Flags,
    Scalar.UINT64: number_types.Uint64Flags,
    Scalar.FLOAT32: number_types.Float32Flags,
    Scalar.FLOAT64: number_types.Float64Flags,
}


@dataclass(frozen=True, slots=True)
class Union:
    """The value of a union field: which table, and its values."""

    table: Table
    values: Mapping[str, object]


def encode(
    table: Table, values: Mapping[str, object], identifier: bytes, size_hint: int = 1024
) -> bytes:
    """Encode `values` as the root `table` of a FlatBuffer with the four-byte `identifier`.

    A value is a number for a scalar field, bytes or a sequence of numbers for a vector, `str` for
    text, a mapping for a table, a sequence of mappings for a vector of tables, and a `Union`.
    A name that the table does not have raises `KeyError`; a value of the wrong kind `TypeError`.
    """
    builder = flatbuffers.Builder(size_hint)
    builder.Finish(_table(builder, table, values), file_identifier=identifier)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, table: Table, values: Mapping[str, object]) -> int:
    """Write the children of a table, then the table; give its offset."""
    offsets: dict[int, int] = {}
    scalars: list[tuple[ScalarField, int | float]] = []
    for name, value in values.items():
        field = table.fields[name]
        if value is None:
            continue
        if isinstance(field, ScalarField):
            if not isinstance(value, (int, float)):
                raise TypeError(f"{table.name}.{name} takes a number, not {type(value).__name__}")
            scalars.append((field, value))
        else:
            offsets[field.slot] = _child(builder, table, field, value)
    # Wide scalars first leave no gaps between them.
    scalars.sort(key=lambda pair: struct.calcsize(pair[0].scalar.value), reverse=True)
    builder.StartObject(table.slots)
    for field, number in scalars:
        builder.PrependSlot(_FLAGS[field.scalar], field.slot, number, field.default)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(builder.EndObject())


def _child(builder: flatbuffers.Builder, table: Table, field: Field, value: object) -> int:
    """Write what a field that is not a scalar points to; give its offset."""
    match field, value:
        case TextField(), str():
            return int(builder.CreateString(value))
        case VectorField(), bytes() | bytearray() | memoryview() | Sequence():
            return _vector(builder, field, value)
        case TableField(table=nested), Mapping():
            return _table(builder, nested, value)
        case TableVectorField(table=nested), Sequence():
            children = [_table(builder, nested, child) for child in value]
            builder.StartVector(4, len(children), 4)
            for child in reversed(children):
                builder.PrependUOffsetTRelative(child)
            return int(builder.EndVector())
        case UnionField(), Union():
            return _table(builder, value.table, value.values)
    raise TypeError(f"{table.name}.{field.name} cannot take {type(value).__name__}")


def _vector(
    builder: flatbuffers.Builder,
    field: VectorField,
    value: bytes | bytearray | memoryview | Sequence[int | float],
) -> int:
    """Write a vector of numbers; bytes are taken as the vector's own little-endian bytes."""
    width = struct.calcsize(field.scalar.value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    else:
        data = struct.pack(f"<{len(value)}{field.scalar.value[-1]}", *value)
    builder.StartVector(width, len(data) // width, max(width, field.alignment))
    # One copy instead of one call for each number, as CreateByteVector does for bytes.
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
    return int(builder.EndVector())
