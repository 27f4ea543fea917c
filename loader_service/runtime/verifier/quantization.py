"""Rules for quantization: as many scales as the shape has places, numbers that kernels can use.

Kernels turn a ratio of scales into an integer and a shift. Where that does not fit, LiteRT 2.3.0
frees memory twice and tflite-runtime 2.14.0 aborts: found by fuzzing, with scales of 1e30 and NaN.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.graph import Operator, Tensor
from loader_service.runtime.verifier.structure import Record, Span

LARGEST_SCALE = 2.0**31
"""Also of the ratio of an operator's scales: a shift of more bits does not fit the kernels."""

SMALLEST_SCALE = 2.0**-126
"""Below it a float32 is not normalized, and XNNPACK takes none such; 0 is left to the kernels."""

_RANGES = {
    TensorType.INT8: (-(2**7), 2**7 - 1),
    TensorType.UINT8: (0, 2**8 - 1),
    TensorType.INT16: (-(2**15), 2**15 - 1),
}
_MULTIPLIED = frozenset(
    (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED, Op.TRANSPOSE_CONV, Op.MUL)
)
"""Operators that scale by first × second ÷ output."""

_ADDED = frozenset((Op.ADD, Op.SUB))
"""Operators that scale by the greater of their inputs ÷ output."""


def broken_quantization(data: bytes, tensor: Tensor, record: Record) -> Iterator[str]:
    """Yield, in words, what is wrong with a tensor's parameters."""
    scale: Span | None = record["scale"]
    zero_point: Span | None = record["zero_point"]
    scales = scale.length if scale else 0
    zero_points = zero_point.length if zero_point else 0
    if zero_points > 1 and scales != zero_points:
        yield f"{scales} scales and {zero_points} zero points"
    if scales > 1:
        dimension = record["quantized_dimension"]
        if not 0 <= dimension < max(len(tensor.shape), 1):
            yield f"is quantized along dimension {dimension} of {len(tensor.shape)}"
        elif tensor.shape and tensor.shape[dimension] not in (scales, -1):
            yield f"{scales} scales for dimension {dimension} of shape {tensor.shape}"
    if scale:
        least, most = _extent(data, scale, "f")
        # A comparison with NaN is false.
        if not (least >= 0 and most <= LARGEST_SCALE):
            yield f"its scales reach from {least:g} to {most:g}"
        elif 0 < least < SMALLEST_SCALE:
            yield f"its scale {least:g} is not a normalized number"
    allowed = _RANGES.get(tensor.type)  # type: ignore[call-overload]
    if zero_point and allowed is not None:
        least, most = _extent(data, zero_point, "q")
        if least < allowed[0] or most > allowed[1]:
            yield f"its zero points reach from {least} to {most}, beyond its type"


def broken_ratio(data: bytes, operator: Operator) -> Iterator[str]:
    """Yield, in words, a ratio of scales that the kernel cannot hold."""
    added = operator.code in _ADDED
    if not added and operator.code not in _MULTIPLIED:
        return
    tensors = operator.graph.tensors
    # TRANSPOSE_CONV has its output's shape first, then weights and image: the product is the same.
    first = 1 if operator.code == Op.TRANSPOSE_CONV else 0
    places = (operator.inputs[first], operator.inputs[first + 1], operator.outputs[0])
    extents = []
    for index in places:
        tensor = tensors[index]
        record = tensor.record["quantization"]
        if record is None or not record["scale"] or tensor.type not in _RANGES:
            return
        extents.append(_extent(data, record["scale"], "f"))
    left, right, divisor = extents[0][1], extents[1][1], extents[2][0]
    product = max(left, right) if added else left * right
    if divisor <= 0 or product / divisor >= LARGEST_SCALE:
        yield f"its scales give the ratio {product:g} to {divisor:g}"


def _extent(data: bytes, span: Span, code: str) -> tuple[float, float]:
    """The least and the greatest number of a vector; NaN where one of them is."""
    if span.length == 1:
        (value,) = struct.unpack_from("<" + code, data, span.start)
        return value, value
    if code == "f":
        values = np.frombuffer(data, "<f4", span.length, span.start)
    else:
        # Zero points of channels are zeros in all but odd files.
        size = 8 * span.length
        if data.count(0, span.start, span.start + size) == size:
            return 0, 0
        values = np.frombuffer(data, "<i8", span.length, span.start)
    return np.minimum.reduce(values).item(), np.maximum.reduce(values).item()
