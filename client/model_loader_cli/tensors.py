"""What the command line knows of a tensor: how it is described, and its NumPy type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_loader import MLTensorInfo

from .terminal import safe

Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        "int64", "uint64", "float64", "int32", "uint32", "float32",
        "int16", "uint16", "float16", "int8", "uint8", "bool",
    )
}  # fmt: skip
"""The data types that NumPy has under the same name; not "unknown" and "string"."""


def shown_shape(dimensions: Iterable[int | None] | None) -> str:
    """`1×224×224×3`; `?` for a size known only at run time, `scalar` for none at all."""
    if dimensions is None:
        return "any shape"
    sizes = ["?" if size is None or size < 0 else str(size) for size in dimensions]
    return safe("[" + ", ".join(sizes) + "]")


def shown_tensor(tensor: MLTensorInfo) -> str:
    """Name, type and shape in one line, for messages."""
    return f"{safe(tensor.name)}  {tensor.data_type}  {shown_shape(tensor.dimensions)}"


def static_shape(tensor: MLTensorInfo) -> tuple[int, ...]:
    """The tensor's shape with 1 for every size known only at run time."""
    return tuple(1 if size is None else size for size in tensor.dimensions or ())
