"""One signature of a model, prepared so that a call costs little: encoding and checking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription, TensorDescription
from model_loader_wire.exchange import KnownTable
from model_loader_wire.frames import BadFrame, Entry, pack_table
from model_loader_wire.limits import Limits
from model_loader_wire.steady_exchange import Pattern, pattern_of

from ._tensor import DTYPES, encode
from .errors import DataError, QuotaExceededError


class Request(NamedTuple):
    """The encoded inputs of one call; ``pattern`` if they and the outputs have the usual sizes."""

    table: bytes
    payload: Sequence[Any]
    length: int
    entries: tuple[Entry, ...]
    pattern: Pattern | None = None


class Plan:
    """How one signature is called."""

    def __init__(self, index: int, signature: SignatureDescription, limits: Limits) -> None:
        self.index = index
        self.inputs = signature.inputs
        self.outputs = signature.outputs
        self.most = limits.output_bytes or 0
        self.known = _known_table(signature.outputs, self.most)
        self.known_arrays = (
            [_shape_and_type(entry) for entry in self.known.entries] if self.known else []
        )
        self._names = tuple(tensor.name for tensor in signature.inputs)
        self._tensor_bytes = limits.tensor_bytes
        fixed = _known_table(signature.inputs, self._tensor_bytes or 2**63)
        if fixed is not None and any(
            entry.data_type is DataType.UNKNOWN for entry in fixed.entries
        ):
            fixed = None
        self._fixed = fixed
        self._pattern = (
            pattern_of(index, fixed, self.known, self.most)
            if fixed is not None and self.known is not None
            else None
        )
        self._shapes = tuple(
            (tensor.name, DTYPES[tensor.data_type], tensor.dimensions) for tensor in self.inputs
        )

    def encode(self, inputs: Any, bare: bool) -> Request:
        """Check and encode the inputs: a mapping by name, or one bare value.

        Raises DataError, or QuotaExceededError for more than ``tensor_bytes`` in all.
        """
        fixed = self._fixed
        if bare:
            if len(self._names) != 1:
                raise DataError(
                    f"the model has {len(self._names)} inputs, so they are given by name: "
                    f"{self._listed()}"
                )
            if fixed is not None and type(inputs) is np.ndarray:
                _, dtype, shape = self._shapes[0]
                if inputs.dtype == dtype and inputs.shape == shape and inputs.flags.c_contiguous:
                    length, entries = fixed.payload_length, fixed.entries
                    return Request(fixed.table, [inputs], length, entries, self._pattern)
            inputs = {self._names[0]: inputs}
        if fixed is not None and len(inputs) == len(self._names):
            payload = []
            for name, dtype, shape in self._shapes:
                value = inputs.get(name)
                if (
                    type(value) is not np.ndarray
                    or value.dtype != dtype
                    or value.shape != shape
                    or not value.flags.c_contiguous
                ):
                    break
                payload.append(value)
            else:
                length, entries = fixed.payload_length, fixed.entries
                return Request(fixed.table, payload, length, entries, self._pattern)
        return self._encode_slowly(inputs)

    def check_answer(self, entries: tuple[Entry, ...]) -> None:
        """Hold an answer's table against the declaration; raises BadFrame."""
        if self.known is not None and entries is self.known.entries:
            return
        if len(entries) != len(self.outputs):
            raise BadFrame(f"{len(entries)} outputs came, {len(self.outputs)} were declared")
        for tensor, entry in zip(self.outputs, entries, strict=True):
            if entry.data_type is not tensor.data_type:
                raise BadFrame(
                    f"output {tensor.name!r} came as {entry.data_type.api_name}, declared was "
                    f"{tensor.data_type.api_name}"
                )
            if not tensor.accepts(entry.dimensions):
                raise BadFrame(f"output {tensor.name!r} came with dimensions {entry.dimensions}")
            if tensor.byte_length is not None and tensor.byte_length != entry.byte_length:
                raise BadFrame(f"output {tensor.name!r} came with {entry.byte_length} bytes")

    def _encode_slowly(self, inputs: Mapping[Any, Any]) -> Request:
        unknown = [str(name) for name in inputs if name not in self._names]
        missing = [name for name in self._names if name not in inputs]
        if unknown or missing:
            faults = []
            if missing:
                faults.append(f"missing: {', '.join(map(repr, missing))}")
            if unknown:
                faults.append(f"not known: {', '.join(map(repr, unknown))}")
            raise DataError(f"{'; '.join(faults)}; the inputs are {self._listed()}")
        entries = []
        payload = []
        for tensor in self.inputs:
            entry, part = encode(tensor, inputs[tensor.name])
            entries.append(entry)
            payload.append(part)
        length = sum(entry.byte_length for entry in entries)
        maximum = self._tensor_bytes
        if maximum is not None and length > maximum:
            raise QuotaExceededError(
                f"the inputs are {length} bytes, the limit tensor_bytes is {maximum}",
                limit="tensor_bytes",
                value=length,
                maximum=maximum,
            )
        return Request(pack_table(entries), payload, length, tuple(entries))

    def _listed(self) -> str:
        return listed(self.inputs) or "none: give {}"


def _shape_and_type(entry: Entry) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """An output as an array: raw bytes where the type has no array of its own."""
    if entry.data_type is DataType.UNKNOWN:
        return (entry.byte_length,), DTYPES[entry.data_type]
    return entry.dimensions, DTYPES[entry.data_type]


def listed(tensors: Sequence[TensorDescription]) -> str:
    """Names of tensors for a message, the first 20 of them."""
    names = [repr(tensor.name) for tensor in tensors[:20]]
    if len(tensors) > 20:
        names.append(f"and {len(tensors) - 20} more")
    return ", ".join(names)


def _known_table(tensors: Sequence[TensorDescription], most: int) -> KnownTable | None:
    """The table that these tensors always have, or None if it is not always the same."""
    entries = []
    for tensor in tensors:
        sizes = tensor.dimensions
        if tensor.byte_length is None or sizes is None or tensor.data_type is DataType.STRING:
            return None
        known = tuple(size for size in sizes if size is not None)
        if len(known) != len(sizes):
            return None
        entries.append(Entry(tensor.data_type, known, tensor.byte_length))
    length = sum(entry.byte_length for entry in entries)
    return KnownTable(pack_table(entries), tuple(entries), length) if length <= most else None
