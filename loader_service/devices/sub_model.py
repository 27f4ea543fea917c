"""A partition as a model of its own: a head before the bytes of the original file.

Offsets in a FlatBuffer lead forwards. So a new root, whose one subgraph lists the nodes of the
partition, can stand before the file that it was made from and lead into it: operators, their
options, constants and operator codes stay where they are and are not written anew. Tensors are
named anew, by `tensor_name`: in the file two may have one name, or none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from loader_service.devices.device import CompilationFailed
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.runtime.schema import (
    BUFFER,
    FILE_IDENTIFIER,
    MODEL,
    SCHEMA_VERSION,
    SUBGRAPH,
    TENSOR,
    Table,
)

ALIGNMENT = 64
"""The head's length is a multiple of it, so that constants stay aligned as they were."""
_LARGEST = 2**31 - 1
"""FlatBuffers are no longer."""
_COPIED = {"type": "<b", "buffer": "<I", "is_variable": "<?", "has_rank": "<?"}
"""Numbers of a tensor, and how they are written."""
_SHARED = ("shape", "quantization", "sparsity", "shape_signature")
"""Parts of a tensor that stay where they are."""


def tensor_name(index: int) -> str:
    """Return what a tensor of the original is called in the partition's model."""
    return f"t{index}"


def head_of(model: ModelView, partition: Partition) -> bytes:
    """Return what comes before ``model.data`` to make of both the partition's model.

    The file has passed the verifier. Raises CompilationFailed for one that has constants behind
    its FlatBuffer, whose places count from the start of the file.
    """
    original = _Original(model.data)
    root = original.follow(0)
    codes, subgraphs, buffers = (
        original.target(root, MODEL, name) for name in ("operator_codes", "subgraphs", "buffers")
    )
    if any(
        original.field(original.element(buffers, number), BUFFER, "offset") is not None
        for number in range(original.uint(buffers))
    ):
        raise CompilationFailed("the file has constants behind its FlatBuffer")
    graph = original.element(subgraphs, 0)
    tensors = original.target(graph, SUBGRAPH, "tensors")
    operators = original.target(graph, SUBGRAPH, "operators")
    head = _Head()
    head.fields(0, MODEL, {"version": SCHEMA_VERSION}, ("operator_codes", "subgraphs", "buffers"))
    head.outside("operator_codes", codes)
    head.outside("buffers", buffers)
    (graph_at,) = head.tables("subgraphs", 1)
    head.fields(graph_at, SUBGRAPH, {}, ("tensors", "inputs", "outputs", "operators"))
    head.integers("inputs", partition.inputs)
    head.integers("outputs", partition.outputs)
    places = head.tables("operators", len(partition.nodes))
    for place, node in zip(places, partition.nodes, strict=True):
        head.lead_outside(place, original.element(operators, node))
    for index, place in enumerate(head.tables("tensors", len(model.tensors))):
        _tensor(head, place, index, original, original.element(tensors, index))
    length = head.finish()
    if length + len(model.data) > _LARGEST:
        raise CompilationFailed("the partition's model would be longer than 2 GiB")
    return bytes(head.data)


def _tensor(head: _Head, place: int, index: int, original: _Original, at: int) -> None:
    """Write a tensor that shares all but its name and its numbers with the original's."""
    numbers = {
        name: int(struct.unpack_from(form, original.data, found)[0])
        for name, form in _COPIED.items()
        if (found := original.field(at, TENSOR, name)) is not None
    }
    shared = [name for name in _SHARED if original.field(at, TENSOR, name) is not None]
    head.fields(place, TENSOR, numbers, ("name", *shared))
    head.text("name", tensor_name(index))
    for name in shared:
        head.outside(name, original.target(at, TENSOR, name))


class _Original:
    """The tables of a file that has passed the verifier."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def uint(self, at: int) -> int:
        """Read an unsigned integer of four bytes."""
        return int(struct.unpack_from("<I", self.data, at)[0])

    def follow(self, at: int) -> int:
        """Where the offset at a place leads to."""
        return at + self.uint(at)

    def field(self, table_at: int, table: Table, name: str) -> int | None:
        """Where a table's field is; None if it is absent."""
        vtable = table_at - int(struct.unpack_from("<i", self.data, table_at)[0])
        (size,) = struct.unpack_from("<H", self.data, vtable)
        entry = 4 + 2 * table.fields[name].slot
        if entry + 2 > size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, vtable + entry)
        return table_at + int(offset) if offset else None

    def target(self, table_at: int, table: Table, name: str) -> int:
        """Where a field leads to. Raises CompilationFailed for one that is absent."""
        at = self.field(table_at, table, name)
        if at is None:
            raise CompilationFailed(f"the file has no {table.name}.{name}")
        return self.follow(at)

    def element(self, vector: int, index: int) -> int:
        """Where an element is of a vector of tables."""
        return self.follow(vector + 4 + 4 * index)


class _Head:
    """The beginning of a FlatBuffer: every piece comes behind what leads to it."""

    def __init__(self) -> None:
        self.data = bytearray(struct.pack("<I4s", 0, FILE_IDENTIFIER))
        self._places: dict[str, int] = {}
        self._outside: list[tuple[int, int]] = []

    def fields(
        self, place: int, table: Table, numbers: Mapping[str, int], offsets: Sequence[str]
    ) -> None:
        """Write the table that a place leads to; what `offsets` lead to is said afterwards."""
        names = (*numbers, *offsets)
        slots = [table.fields[name].slot for name in names]
        entries = [0] * (1 + max(slots, default=-1))
        for number, slot in enumerate(slots, 1):
            entries[slot] = 4 * number
        sizes = (4 + 2 * len(entries), 4 + 4 * len(names))
        vtable = struct.pack(f"<{2 + len(entries)}H", *sizes, *entries)
        vtable_at = len(self.data)
        self.data += vtable + bytes(-len(vtable) % 4)
        at = len(self.data)
        self._lead(place, at)
        self.data += struct.pack("<i", at - vtable_at)
        self.data += struct.pack(f"<{len(numbers)}I", *numbers.values())
        for name in offsets:
            self._places[name] = len(self.data)
            self.data += bytes(4)

    def integers(self, name: str, values: Sequence[int]) -> None:
        """Write the vector of integers that a field leads to."""
        self._lead(self._places[name], len(self.data))
        self.data += struct.pack(f"<I{len(values)}i", len(values), *values)

    def tables(self, name: str, count: int) -> list[int]:
        """Write a vector of tables; returns the places that are to lead to them."""
        self._lead(self._places[name], len(self.data))
        self.data += struct.pack("<I", count)
        places = [len(self.data) + 4 * number for number in range(count)]
        self.data += bytes(4 * count)
        return places

    def text(self, name: str, text: str) -> None:
        """Write the text that a field leads to."""
        self._lead(self._places[name], len(self.data))
        raw = text.encode()
        self.data += struct.pack("<I", len(raw)) + raw + bytes(4 - len(raw) % 4)

    def outside(self, name: str, at: int) -> None:
        """Let a field lead to a place in the original file."""
        self.lead_outside(self._places[name], at)

    def lead_outside(self, place: int, at: int) -> None:
        """Let a place lead to one in the original file."""
        self._outside.append((place, at))

    def finish(self) -> int:
        """Fill up to the alignment, and lead into the file behind; return the length."""
        self.data += bytes(-len(self.data) % ALIGNMENT)
        for place, at in self._outside:
            self._lead(place, len(self.data) + at)
        return len(self.data)

    def _lead(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.data, place, target - place)
