"""Holding requests against what the model declares."""

from __future__ import annotations

from typing import NamedTuple

from loader_service.worker.failing import Refused
from model_loader_wire.causes import Cause
from model_loader_wire.description import ModelDescription
from model_loader_wire.frames import Entry, Header, unpack_table


class Known(NamedTuple):
    """The last good table of a signature's requests."""

    table: bytes
    payload_length: int
    entries: tuple[Entry, ...]


class Requests:
    """The requests that one model takes; ``known`` remembers the last good one by signature."""

    def __init__(self, description: ModelDescription, tensor_bytes: int) -> None:
        self.known: dict[int, Known] = {}
        self._signatures = description.signatures
        self._tensor_bytes = tensor_bytes

    def check(self, header: Header, table: memoryview) -> tuple[Entry, ...]:
        """Return what a request's table says; raises Refused if the model does not take it."""
        known = self.known.get(header.signature)
        if (
            known is not None
            and known.table == table
            and known.payload_length == header.payload_length
            and len(known.entries) == header.tensors
        ):
            return known.entries
        if header.signature >= len(self._signatures):
            raise Refused(Cause.INVALID_INPUT, f"there is no signature {header.signature}")
        if header.payload_length > self._tensor_bytes:
            raise Refused(
                Cause.LIMIT,
                f"the inputs have {header.payload_length} bytes, "
                f"the limit tensor_bytes is {self._tensor_bytes}",
                limit="tensor_bytes",
                value=header.payload_length,
                maximum=self._tensor_bytes,
            )
        try:
            entries = unpack_table(table, header.tensors, header.payload_length)
        except ValueError as error:
            raise Refused(Cause.INVALID_INPUT, str(error)) from None
        inputs = self._signatures[header.signature].inputs
        if len(entries) != len(inputs):
            raise Refused(
                Cause.INVALID_INPUT, f"{len(entries)} inputs came, {len(inputs)} are needed"
            )
        for entry, declared in zip(entries, inputs, strict=True):
            if entry.data_type is not declared.data_type:
                raise Refused(
                    Cause.INVALID_INPUT,
                    f"input {declared.name!r} is {declared.data_type.api_name}, "
                    f"not {entry.data_type.api_name}",
                )
            if not declared.accepts(entry.dimensions):
                raise Refused(
                    Cause.INVALID_INPUT,
                    f"input {declared.name!r} has dimensions {declared.dimensions}, "
                    f"not {entry.dimensions}",
                )
        self.known[header.signature] = Known(bytes(table), header.payload_length, entries)
        return entries
