"""Reading and writing an interpreter's tensors where they lie.

Addresses are never kept. They move on every resize, and during a run of a graph that holds a
tensor of unknown size anywhere, which the Python API does not tell; taking a view anew costs about
half a microsecond. Traps this file knows:

- a view over a tensor whose owner is the interpreter would make the interpreter refuse to run; one
  without an owner does not, and the caller promises to drop it in time;
- a tensor of rank 0 comes as a copy, so scalars are staged here and set, or copied out;
- asking for the memory of a string tensor crashes;
- elements smaller than a byte are packed: the array claims more bytes than there are;
- an array over a null pointer is memory of NumPy's own with anything in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from loader_service.runtime.element_types import ElementType, element_type
from loader_service.runtime.engine import OutputTensor
from loader_service.runtime.failures import InvalidInput, ModelFailed, UnsupportedModel
from loader_service.runtime.native import Array, NativeInterpreter
from model_loader_wire.strings import BadStrings, pack_strings

_NOTHING = memoryview(bytearray())
_BYTE = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One tensor of one subgraph that is an input or output.

    ``scalar``: memory of our own for an input of rank 0; None for all others.
    """

    subgraph: int
    tensor: int
    element: ElementType
    scalar: Array | None = None


def input_place(native: NativeInterpreter, subgraph: int, tensor: int) -> Place:
    """Look at an input; raises UnsupportedModel for one that cannot be written."""
    element = _dense_element(native, subgraph, tensor)
    scalar = None
    if len(native.TensorSizeSignature(tensor, subgraph)) == 0 and not element.is_string:
        if element.dtype is None:
            raise UnsupportedModel(
                f"an input of rank 0 and type {element.tensor_type.name.lower()} cannot be set"
            )
        scalar = np.zeros((), element.dtype)
    return Place(subgraph, tensor, element, scalar)


def output_place(native: NativeInterpreter, subgraph: int, tensor: int) -> Place:
    """Look at an output; raises UnsupportedModel for one that cannot be read."""
    return Place(subgraph, tensor, _dense_element(native, subgraph, tensor))


def _dense_element(native: NativeInterpreter, subgraph: int, tensor: int) -> ElementType:
    if native.TensorSparsityParameters(tensor, subgraph):
        raise UnsupportedModel("a sparse tensor cannot be an input or output")
    return element_type(native, subgraph, tensor)


def input_view(
    native: NativeInterpreter, place: Place, dimensions: tuple[int, ...]
) -> memoryview | None:
    """Return the memory of an allocated input, or None for strings."""
    if place.element.bits == 0:
        return None
    if place.scalar is not None:
        return place.scalar.reshape(1).view(_BYTE).data
    if 0 in dimensions:
        return _NOTHING
    try:
        array = native.tensor(None, place.tensor, place.subgraph)
    except ValueError as error:
        raise ModelFailed(f"an input has no memory: {error}") from None
    if array.flags.owndata:
        raise ModelFailed("an input has no memory")
    return _bytes_of(array, place.element)


def set_strings(
    native: NativeInterpreter, place: Place, dimensions: tuple[int, ...], values: Sequence[bytes]
) -> None:
    """Copy strings into an allocated string input."""
    if not place.element.is_string:
        raise InvalidInput("the input holds no strings")
    if prod(dimensions) != len(values):
        raise InvalidInput(f"{len(values)} strings do not fill {dimensions}")
    array: Array = np.empty(len(values), object)
    array[:] = values
    native.SetTensor(place.tensor, array.reshape(dimensions), place.subgraph)


def read_output(native: NativeInterpreter, place: Place) -> OutputTensor:
    """Return an output of a graph that has run; not a copy, except of strings and scalars."""
    element = place.element
    if element.bits == 0:
        return _read_strings(native, place)
    try:
        array = native.tensor(None, place.tensor, place.subgraph)
    except ValueError as error:
        # Both runtimes refuse a tensor without bytes that has an address all the same.
        dimensions = _size(native, place)
        if 0 in dimensions:
            return OutputTensor(element.data_type, dimensions, _NOTHING)
        raise ModelFailed(f"an output has no data: {error}") from None
    if element.dtype is not None and array.dtype != element.dtype:
        # Some kernels give their output another type than the file does.
        raise ModelFailed(f"an output became {array.dtype}, and the model declares {element.dtype}")
    dimensions = array.shape
    if not dimensions:
        return OutputTensor(element.data_type, (), array.tobytes()[: element.byte_length(1)])
    if 0 in dimensions:
        return OutputTensor(element.data_type, dimensions, _NOTHING)
    if array.flags.owndata:
        raise ModelFailed("an output has no data")
    return OutputTensor(element.data_type, dimensions, _bytes_of(array, element))


def has_memory(native: NativeInterpreter, place: Place) -> bool:
    """Whether an allocated output that is no string lies anywhere yet: not if its size is open."""
    try:
        array = native.tensor(None, place.tensor, place.subgraph)
    except ValueError:
        return 0 in _size(native, place)
    shape: tuple[int, ...] = array.shape
    return not shape or 0 in shape or not array.flags.owndata


def _bytes_of(array: Array, element: ElementType) -> memoryview:
    if element.buffered:
        return array.data.cast("B")
    return array.reshape(-1).view(_BYTE).data[: element.byte_length(array.size)]


def _read_strings(native: NativeInterpreter, place: Place) -> OutputTensor:
    dimensions = _size(native, place)
    values: list[bytes | None] = []
    if 0 not in dimensions:
        try:
            values = native.GetTensor(place.tensor, place.subgraph).reshape(-1).tolist()
        except ValueError as error:
            raise ModelFailed(f"an output has no data: {error}") from None
    try:
        # The runtime leaves None where a kernel wrote fewer strings than the shape has elements.
        data = pack_strings([value or b"" for value in values])
    except BadStrings as error:
        raise ModelFailed(f"an output has too long strings: {error}") from None
    return OutputTensor(place.element.data_type, dimensions, data)


def _size(native: NativeInterpreter, place: Place) -> tuple[int, ...]:
    sizes: list[int] = native.TensorSize(place.tensor, place.subgraph).tolist()
    return tuple(sizes)
