"""The element type of an interpreter's tensor, asked of the interpreter itself.

The Python API maps a type to NumPy's and loses some: int4, int2 and the eight-bit floats come as
int8. The refusal of a value that no tensor takes names the true type, in both runtimes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from loader_service.runtime.failures import UnsupportedModel
from loader_service.runtime.native import NativeInterpreter
from loader_service.runtime.schema_tensor_types import ELEMENT_BITS, TensorType
from model_loader_wire.data_types import DataType

try:
    # The runtimes hand out bfloat16 as "the first type registered with NumPy" and crash where
    # there is none; this package registers it.
    import ml_dtypes

    _BFLOAT16_KNOWN = np.dtype(ml_dtypes.bfloat16).num == 256
except ImportError:
    _BFLOAT16_KNOWN = False

_NO_ELEMENT: np.ndarray[Any, Any] = np.zeros((), "V4")
_TYPE_NAMES = (
    re.compile(r"expected type (\w+) for input"),
    re.compile(r"for (\w+) input \d+, name"),
)
_KNOWN = {
    type_.name: DataType[type_.name]
    for type_ in TensorType
    if type_.name in DataType.__members__ and type_ is not TensorType.STRING
}
_HANDLES = (TensorType.RESOURCE, TensorType.VARIANT)


@dataclass(frozen=True, slots=True)
class ElementType:
    """A TFLite element type as the service sees it.

    ``bits`` of one element (0 for strings); ``buffered``: whether Python's buffer protocol knows
    the elements, and they lie in memory that may be looked at; ``dtype``: NumPy's type where it has
    one, else None.
    """

    tensor_type: TensorType
    data_type: DataType
    bits: int
    buffered: bool
    dtype: np.dtype[Any] | None

    @property
    def is_string(self) -> bool:
        """Whether elements are byte strings of any length."""
        return self.tensor_type is TensorType.STRING

    def byte_length(self, elements: int) -> int:
        """Bytes of so many elements; types below eight bits are packed."""
        return (elements * self.bits + 7) // 8


def _element_type(tensor_type: TensorType) -> ElementType:
    data_type = _KNOWN.get(tensor_type.name, DataType.UNKNOWN)
    dtype = None
    if tensor_type is TensorType.STRING:
        data_type = DataType.STRING
    elif data_type is not DataType.UNKNOWN or tensor_type.name.startswith("COMPLEX"):
        dtype = np.dtype(tensor_type.name.lower())
    return ElementType(
        tensor_type,
        data_type,
        bits=ELEMENT_BITS[tensor_type] or 0,
        buffered=data_type not in (DataType.UNKNOWN, DataType.STRING),
        dtype=dtype,
    )


ELEMENT_TYPES = {type_.name: _element_type(type_) for type_ in TensorType if type_ not in _HANDLES}
"""By the runtimes' own names, which are the schema's."""


def element_type(native: NativeInterpreter, subgraph: int, tensor: int) -> ElementType:
    """Return a tensor's element type; the tensor is left as it was.

    Raises UnsupportedModel for handles (resource, variant), which are no data, and for types that
    cannot be read through the Python API.
    """
    name = _type_name(native, subgraph, tensor)
    found = ELEMENT_TYPES.get(name)
    if found is None:
        raise UnsupportedModel(f"a tensor of type {name.lower()} cannot be an input or output")
    if found.tensor_type is TensorType.BFLOAT16 and not _BFLOAT16_KNOWN:
        raise UnsupportedModel("bfloat16 tensors need the package ml_dtypes in the service")
    return found


def _type_name(native: NativeInterpreter, subgraph: int, tensor: int) -> str:
    try:
        native.SetTensor(tensor, _NO_ELEMENT, subgraph)
    except ValueError as error:
        for pattern in _TYPE_NAMES:
            match = pattern.search(str(error))
            if match:
                return match.group(1)
        raise UnsupportedModel(f"the type of tensor {tensor} is not told: {error}") from None
    raise UnsupportedModel(f"the type of tensor {tensor} is not told")
