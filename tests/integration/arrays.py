"""Arrays that fit a model's inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

import model_loader as ml

Array = np.ndarray[Any, Any]


def shape_of(info: ml.MLTensorInfo, open_size: int = 1) -> tuple[int, ...]:
    """The declared shape, with `open_size` where a size is open."""
    return tuple(open_size if size is None else size for size in info.dimensions or ())


def filled(info: ml.MLTensorInfo, value: Any) -> Array:
    """An array for a tensor, all elements `value` (for strings: a short text)."""
    if info.data_type == "string":
        return np.full(shape_of(info), b"x", object)
    return np.full(shape_of(info), value, info.data_type)


def inputs_of(model: ml.MLModel, value: Any = 1) -> dict[str, Array]:
    """Inputs for a call, all elements `value`."""
    return {info.name: filled(info, value) for info in model.inputs()}
