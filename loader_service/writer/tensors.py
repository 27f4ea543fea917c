"""What the writer knows of a tensor: its handle, its quantization, its NumPy type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader_service.runtime.schema_tensor_types import TensorType

Array = NDArray[np.generic]
Shape = tuple[int, ...]

NUMPY_TYPES: dict[TensorType, np.dtype[np.generic]] = {
    TensorType.FLOAT32: np.dtype(np.float32),
    TensorType.FLOAT16: np.dtype(np.float16),
    TensorType.INT32: np.dtype(np.int32),
    TensorType.UINT8: np.dtype(np.uint8),
    TensorType.INT64: np.dtype(np.int64),
    TensorType.BOOL: np.dtype(np.bool_),
    TensorType.INT16: np.dtype(np.int16),
    TensorType.COMPLEX64: np.dtype(np.complex64),
    TensorType.INT8: np.dtype(np.int8),
    TensorType.FLOAT64: np.dtype(np.float64),
    TensorType.COMPLEX128: np.dtype(np.complex128),
    TensorType.UINT64: np.dtype(np.uint64),
    TensorType.UINT32: np.dtype(np.uint32),
    TensorType.UINT16: np.dtype(np.uint16),
}
_TENSOR_TYPES = {dtype: tensor_type for tensor_type, dtype in NUMPY_TYPES.items()}


def tensor_type_of(dtype: np.dtype[np.generic]) -> TensorType:
    """The tensor type of a NumPy type; `KeyError` for one that TFLite does not have."""
    return _TENSOR_TYPES[dtype]


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale × (stored − zero point), for the tensor or for each index of one dimension."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dimension: int = 0

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> Quantization:
        """One scale and zero point for all elements."""
        return cls((float(scale),), (int(zero_point),))

    @classmethod
    def per_channel(cls, scales: Sequence[float], dimension: int) -> Quantization:
        """A scale for each index of `dimension`, and zero point 0, as kernels demand of weights."""
        return cls(tuple(float(scale) for scale in scales), (0,) * len(scales), dimension)


@dataclass(frozen=True, slots=True)
class BlockwiseQuantization:
    """A scale and a zero point for each block; both are held by tensors of the same subgraph."""

    scales: Tensor
    zero_points: Tensor
    block_size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor already written into a subgraph; operators take and give it."""

    subgraph: int
    index: int
    name: str
    type: TensorType
    shape: Shape
    quantization: Quantization | BlockwiseQuantization | None = None


def pack_strings(strings: Sequence[bytes]) -> bytes:
    """The bytes of a string tensor: int32 count, count + 1 int32 offsets from the start, text."""
    position = 4 * (len(strings) + 2)
    offsets = [position]
    for string in strings:
        position += len(string)
        offsets.append(position)
    header = np.array([len(strings), *offsets], dtype="<i4").tobytes()
    return header + b"".join(strings)
