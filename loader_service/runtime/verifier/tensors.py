"""Rules for tensors: types, sizes, and constants whose bytes fit their shape.

Source of the rules: what TFLite's own verifier checks of tensors, and overflow of element and byte
counts, which kernels hold in 32 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np

from loader_service.runtime.failures import InvalidModel, UnsupportedModel
from loader_service.runtime.schema_tensor_types import ELEMENT_BITS, TensorType
from loader_service.runtime.verifier.graph import Model, Subgraph, Tensor
from loader_service.runtime.verifier.quantization import broken_quantization

LARGEST_COUNT = 2**31 - 1
"""Kernels count elements in an int32."""

MAXIMUM_RANK = 8
"""Kernels of both runtimes keep shapes, strides and indices of that many dimensions in arrays."""

LONGEST_CONSTANT = 1 << 18
"""Numbers of a constant that rules look at; a longer one is left to the kernel's own checks."""

_BITS = [ELEMENT_BITS[TensorType(number)] for number in range(len(TensorType))]
_DENSE, _SPARSE = 0, 1


def check_tensors(model: Model) -> None:
    """Check all tensors of a model. Raises InvalidModel, UnsupportedModel."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            rule = next(_broken(model, tensor), None)
            if rule is not None:
                raise InvalidModel(f"{model.tensor_place(graph, tensor.index)}: {rule}")
            if tensor.record["external_buffer"]:
                place = model.tensor_place(graph, tensor.index)
                raise UnsupportedModel(f"{place}: data in another file is not supported")


def byte_length(tensor: Tensor) -> int | None:
    """Bytes of a tensor by its shape in the file; None if they do not follow from it."""
    bits = _BITS[tensor.type]
    if bits is None or any(size < 0 for size in tensor.shape):
        return None
    return (prod(tensor.shape) * bits + 7) // 8


def constant(model: Model, graph: Subgraph, index: int) -> tuple[int, ...] | None:
    """The integers of a constant; None for what is none, or longer than `LONGEST_CONSTANT`."""
    tensor = graph.tensors[index]
    code = {
        TensorType.INT32: "i",
        TensorType.INT64: "q",
        TensorType.INT16: "h",
        TensorType.INT8: "b",
        TensorType.UINT8: "B",
        TensorType.UINT32: "I",
    }.get(TensorType(tensor.type))
    if tensor.data is None or code is None or tensor.record["sparsity"] is not None:
        return None
    start, size = tensor.data
    if size > LONGEST_CONSTANT * struct.calcsize(code):
        return None
    return struct.unpack_from(f"<{size // struct.calcsize(code)}{code}", model.data, start)


def _broken(model: Model, tensor: Tensor) -> Iterator[str]:
    """Yield the rules that a tensor breaks."""
    if not 0 <= tensor.type < len(_BITS):
        yield f"there is no element type {tensor.type}"
    shape, record = tensor.shape, tensor.record
    if shape:
        if min(shape) < -1:
            yield f"a dimension of {min(shape)}"
        if prod([size for size in shape if size > 1]) > LARGEST_COUNT:
            yield f"shape {shape} has more than {LARGEST_COUNT} elements"
    quantization = record["quantization"]
    if quantization is not None:
        yield from broken_quantization(model.data, tensor, quantization)
    if record["sparsity"] is not None:
        yield from _sparsity(model, tensor)
    elif tensor.data is not None:
        yield from _constant_size(model, tensor)
    if tensor.data is not None and tensor.is_variable:
        yield "a variable cannot have constant data"


def _constant_size(model: Model, tensor: Tensor) -> Iterator[str]:
    assert tensor.data is not None
    start, size = tensor.data
    bits = _BITS[tensor.type]
    if tensor.type == TensorType.STRING:
        yield from _strings(model.data, start, size, tensor)
    elif bits is None:
        yield "a handle cannot be a constant"
    elif any(length < 0 for length in tensor.shape):
        yield "a constant cannot have an open dimension"
    else:
        wanted = (prod(tensor.shape) * bits + 7) // 8
        if size != wanted:
            yield f"shape {tensor.shape} takes {wanted} bytes, and the constant has {size}"


def _strings(data: bytes, start: int, size: int, tensor: Tensor) -> Iterator[str]:
    """int32 count, count + 1 int32 offsets from the start, text."""
    if size < 4:
        yield "a string constant has no count"
        return
    (count,) = struct.unpack_from("<i", data, start)
    if count < 0 or 4 * (count + 2) > size:
        yield f"{count} strings do not fit into {size} bytes"
        return
    if count != prod(tensor.shape):
        yield f"{count} strings for shape {tensor.shape}"
    offsets = np.frombuffer(data, "<i4", count + 1, start + 4)
    if offsets[0] < 4 * (count + 2) or offsets[-1] > size or (offsets[1:] < offsets[:-1]).any():
        yield "the offsets of a string constant are out of order or range"


def _sparsity(model: Model, tensor: Tensor) -> Iterator[str]:
    """A sparse constant: each level within its data, and as many values as the levels say."""
    sparsity = tensor.record["sparsity"]
    place = f"tensor {tensor.index}"
    order = model.structure.integers(sparsity["traversal_order"], place)
    blocks = model.structure.integers(sparsity["block_map"], place)
    levels = sparsity["dim_metadata"] or []
    rank = len(tensor.shape)
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        yield "the sparse levels are no permutation of the dimensions"
        return
    if any(not 0 <= block < rank for block in blocks):
        yield "a sparse block is of a dimension that does not exist"
        return
    count = 1
    for level in levels:
        if level["format"] == _DENSE:
            if level["dense_size"] <= 0:
                yield f"a dense level of size {level['dense_size']}"
                return
            count *= level["dense_size"]
        elif level["format"] == _SPARSE:
            found = _sparse_level(model, level, count, place)
            if found is None:
                yield "a sparse level's segments or indices contradict each other"
                return
            count = found
        else:
            yield f"there is no sparse format {level['format']}"
            return
        if count > LARGEST_COUNT:
            yield "has too many sparse values"
            return
    bits = _BITS[tensor.type]
    if tensor.data is None or bits is None or tensor.data[1] != (count * bits + 7) // 8:
        yield f"its {count} sparse values are not what the buffer holds"


def _sparse_level(
    model: Model, level: dict[str, dict[str, object]], count: int, place: str
) -> int | None:
    """How many values a compressed level has below `count` others; None if it is broken."""
    vectors = []
    for name in ("array_segments", "array_indices"):
        values = (level[name] or {}).get("values")
        vectors.append(model.structure.integers(values, place))  # type: ignore[arg-type]
    segments, indices = vectors
    ordered = all(a <= b for a, b in pairwise(segments))
    if len(segments) != count + 1 or segments[0] != 0 or not ordered:
        return None
    if segments[-1] != len(indices) or any(index < 0 for index in indices):
        return None
    return len(indices)
