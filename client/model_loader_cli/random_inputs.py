"""Made-up inputs that fit a model: to see whether it runs, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from model_loader import MLTensor, MLTensorInfo

from .tensors import DTYPES, static_shape

TEXTS = (b"good", b"model", b"", b"answers")
SMALL = 8
"""Integers wider than a byte are below this: they are often indices."""


def random_inputs(tensors: Iterable[MLTensorInfo], seed: int) -> Mapping[str, Any]:
    """Give a value for each input, always the same for one seed.

    Floating point: -1 to 1; bytes: their whole range; wider integers: 0 to 7; sizes known only at
    run time: 1; strings: a few words in turn; types that NumPy does not have: no value.
    """
    generator = np.random.default_rng(seed)
    return {
        tensor.name: _value(tensor, generator)
        for tensor in tensors
        if tensor.data_type in DTYPES or tensor.data_type == "string"
    }


def _value(tensor: MLTensorInfo, generator: np.random.Generator) -> Any:
    shape = static_shape(tensor)
    if tensor.data_type == "string":
        count = int(np.prod(shape))
        return MLTensor([TEXTS[place % len(TEXTS)] for place in range(count)], shape)
    dtype = DTYPES[tensor.data_type]
    if dtype.kind == "f":
        return (generator.random(shape) * 2 - 1).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return generator.integers(0, SMALL, shape).astype(dtype)
