"""Tensors of the caller: which values are taken, and as which bytes. Nothing is ever cast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_loader_wire.data_types import DataType
from model_loader_wire.description import TensorDescription
from model_loader_wire.frames import Entry
from model_loader_wire.strings import BadStrings, pack_strings

from .errors import ConstraintError, DataError

Array = NDArray[Any]

DTYPES: dict[DataType, np.dtype[Any]] = {
    DataType.INT64: np.dtype(np.int64),
    DataType.UINT64: np.dtype(np.uint64),
    DataType.FLOAT64: np.dtype(np.float64),
    DataType.INT32: np.dtype(np.int32),
    DataType.UINT32: np.dtype(np.uint32),
    DataType.FLOAT32: np.dtype(np.float32),
    DataType.INT16: np.dtype(np.int16),
    DataType.UINT16: np.dtype(np.uint16),
    DataType.FLOAT16: np.dtype(np.float16),
    DataType.INT8: np.dtype(np.int8),
    DataType.UINT8: np.dtype(np.uint8),
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UNKNOWN: np.dtype(np.uint8),
    DataType.STRING: np.dtype(object),
}
"""How each data type looks in NumPy; "unknown" is raw bytes, strings are objects of ``bytes``."""

if sys.byteorder != "little":  # the wire and TensorFlow Lite's files are little-endian
    raise ImportError("model_loader runs on little-endian machines only")


class MLTensor:
    """Data with dimensions (``MLTensor`` of the specification).

    ``data`` is an array or buffer with a data type of its own (for "unknown" tensors ``bytes``, for
    string tensors a list of texts); ``dimensions`` its sizes in row-major order, () for a scalar.
    They are the array's own shape if left out. Raises ConstraintError if the two do not fit.
    """

    __slots__ = ("data", "dimensions")

    def __init__(self, data: Any, dimensions: Sequence[int] | None = None) -> None:
        self.data = data
        self.dimensions: tuple[int, ...] | None = None
        if dimensions is None:
            return
        try:
            sizes = tuple(dimensions)
        except TypeError:
            sizes = (-1,)
        for size in sizes:
            if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 0:
                raise ConstraintError(
                    f"dimensions must be whole numbers from 0 on, not {dimensions!r}"
                )
        self.dimensions = tuple(int(size) for size in sizes)
        held = getattr(data, "size", None)
        if (
            isinstance(data, np.ndarray)
            and held != prod(self.dimensions)
            and data.dtype != np.uint8
        ):
            raise ConstraintError(
                f"data of {held} elements does not fill dimensions {list(self.dimensions)}"
            )

    def __repr__(self) -> str:
        kind = getattr(self.data, "dtype", type(self.data).__name__)
        sizes = self.dimensions if self.dimensions is not None else np.shape(self.data)
        return f"MLTensor({kind}, dimensions={list(sizes)})"


def encode(tensor: TensorDescription, value: Any) -> tuple[Entry, bytes | memoryview]:
    """Check a value for an input, and give its table entry and bytes; raises DataError."""
    dimensions = None
    if isinstance(value, MLTensor):
        value, dimensions = value.data, value.dimensions
    if tensor.data_type is DataType.STRING:
        return _encode_strings(tensor, value, dimensions)
    if tensor.data_type is DataType.UNKNOWN:
        return _encode_raw(tensor, value, dimensions)
    array = _as_array(tensor, value)
    wanted = DTYPES[tensor.data_type]
    if array.dtype != wanted:
        if isinstance(value, bytes | bytearray):
            raise DataError(
                f"input {tensor.name!r} is {tensor.data_type.api_name}, but plain bytes came: use "
                f"numpy.frombuffer(value, dtype=numpy.{wanted})"
            )
        raise DataError(
            f"input {tensor.name!r} is {tensor.data_type.api_name}, but an array of {array.dtype} "
            f"came; nothing is cast silently: use {_cure(array.dtype, wanted)}"
        )
    if dimensions is not None:
        if array.size != prod(dimensions):
            raise DataError(
                f"input {tensor.name!r}: data of {array.size} elements does not fill dimensions "
                f"{list(dimensions)}"
            )
        array = array.reshape(dimensions)
    _check_shape(tensor, array.shape)
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    return Entry(tensor.data_type, array.shape, array.nbytes), array.data


def _encode_raw(
    tensor: TensorDescription, value: Any, dimensions: tuple[int, ...] | None
) -> tuple[Entry, bytes | memoryview]:
    array = _as_array(tensor, value)
    if array.dtype != np.uint8:
        raise DataError(
            f"input {tensor.name!r} is of a type outside the specification's list: give its raw "
            f"bytes as bytes or an array of uint8, not {array.dtype}"
        )
    if dimensions is None:
        if tensor.dimensions is None or None in tensor.dimensions:
            raise DataError(
                f"input {tensor.name!r} has sizes known only at run time: give its bytes as "
                f"MLTensor(data, dimensions); it is declared as {shown(tensor)}"
            )
        dimensions = tuple(size for size in tensor.dimensions if size is not None)
    _check_shape(tensor, dimensions)
    if tensor.byte_length is not None and array.nbytes != tensor.byte_length:
        raise DataError(
            f"input {tensor.name!r} takes exactly {tensor.byte_length} bytes, {array.nbytes} came"
        )
    array = np.ascontiguousarray(array)
    return Entry(DataType.UNKNOWN, dimensions, array.nbytes), array.data


def _encode_strings(
    tensor: TensorDescription, value: Any, dimensions: tuple[int, ...] | None
) -> tuple[Entry, bytes | memoryview]:
    if isinstance(value, str | bytes):
        elements: list[Any] = [value]
        shape: tuple[int, ...] = ()
        if dimensions is None and tensor.dimensions and set(tensor.dimensions) <= {1, None}:
            shape = (1,) * len(tensor.dimensions)  # one text for a tensor of one element
    else:
        array = np.asarray(value) if isinstance(value, np.ndarray) else _object_array(tensor, value)
        elements, shape = array.reshape(-1).tolist(), array.shape
    if dimensions is not None:
        if len(elements) != prod(dimensions):
            raise DataError(
                f"input {tensor.name!r}: {len(elements)} strings do not fill dimensions "
                f"{list(dimensions)}"
            )
        shape = dimensions
    _check_shape(tensor, shape)
    encoded = []
    for element in elements:
        if isinstance(element, str):
            element = element.encode()
        if not isinstance(element, bytes):
            raise DataError(
                f"input {tensor.name!r} takes strings (str or bytes), not {type(element).__name__}"
            )
        encoded.append(element)
    try:
        data = pack_strings(encoded)
    except BadStrings as error:
        raise DataError(f"input {tensor.name!r}: {error}") from None
    return Entry(DataType.STRING, shape, len(data)), data


def _object_array(tensor: TensorDescription, value: Any) -> Array:
    if not isinstance(value, list | tuple):
        raise DataError(
            f"input {tensor.name!r} takes strings: a str, bytes, a (nested) list of them or an "
            f"array of object, not {type(value).__name__}"
        )
    try:
        return np.array(value, dtype=object)
    except ValueError:
        raise DataError(f"input {tensor.name!r}: the nested lists are of unequal length") from None


def _as_array(tensor: TensorDescription, value: Any) -> Array:
    """See a value that carries a data type as an array, without a copy where possible."""
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(f"input {tensor.name!r}: a masked array has gaps; fill them first")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if isinstance(value, bytes | bytearray):
        return np.frombuffer(value, dtype=np.uint8)
    if isinstance(value, np.generic | memoryview) or any(
        hasattr(value, name) for name in ("__array__", "__array_interface__", "__buffer__")
    ):
        return np.asarray(value)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        wanted = DTYPES[tensor.data_type]
        raise DataError(
            f"input {tensor.name!r} takes an array of {wanted}, not {type(value).__name__}: use "
            f"numpy.array(value, dtype=numpy.{wanted})"
        ) from None


def _check_shape(tensor: TensorDescription, shape: tuple[int, ...]) -> None:
    if not tensor.accepts(shape):
        raise DataError(
            f"input {tensor.name!r} takes dimensions {shown(tensor)}, but {list(shape)} came"
        )


def _cure(given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    if given.newbyteorder("=") == wanted:
        return (
            f"array.astype(array.dtype.newbyteorder('=')) (the array is {given.byteorder}-endian)"
        )
    return f"array.astype(numpy.{wanted})"


def shown(tensor: TensorDescription) -> str:
    """Dimensions as people write them, "?" for what is known only at run time."""
    if tensor.dimensions is None:
        return "of any rank"
    return "[" + ", ".join("?" if size is None else str(size) for size in tensor.dimensions) + "]"
