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

_COMPARED = frozenset(
    (Op.EQUAL, Op.NOT_EQUAL, Op.GREATER, Op.GREATER_EQUAL, Op.LESS, Op.LESS_EQUAL)
)
"""Operators that take a scale itself for a fraction."""

_BYTES = (TensorType.INT8, TensorType.UINT8)
_LARGEST_SUM = {TensorType.INT8: 2.0**19, TensorType.UINT8: 2.0**19, TensorType.INT16: 2.0**14}
"""Of the greater input's scale ÷ output's: the kernels shift sums left by 20 or 15 bits, and abort
unless twice the ratio, shifted back, is a fraction."""

_LARGEST_SQUARE = 2.0**12
"""Of the greater input's scale, squared, ÷ output's, likewise with 7 bits."""


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
    """Yield, in words, scales, or a ratio of scales, that the kernel cannot hold.

    Where a kernel checks them it ends the process: the sums, squares and comparisons of bytes
    cannot do without a scale.
    """
    code = operator.code
    if code in _MULTIPLIED:
        yield from _product(data, operator)
    elif code in _ADDED:
        yield from _sum(data, operator)
    elif code == Op.SQUARED_DIFFERENCE:
        yield from _square(data, operator)
    elif code in _COMPARED:
        yield from _comparison(data, operator)
    elif code in (Op.QUANTIZE, Op.RSQRT):
        tensor = operator.graph.tensors[operator.inputs[0]]
        result = operator.graph.tensors[operator.outputs[0]]
        scale = _scale(data, tensor)
        missing = tensor.type == TensorType.INT16 and scale is None and code == Op.RSQRT
        if missing or scale == 0 or (_scale(data, result) == 0 and code == Op.QUANTIZE):
            yield "has no scale to divide by"


def _product(data: bytes, operator: Operator) -> Iterator[str]:
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
    product, divisor = extents[0][1] * extents[1][1], extents[2][0]
    if divisor <= 0 or product / divisor >= LARGEST_SCALE:
        yield _ratio(product, divisor)


def _sum(data: bytes, operator: Operator) -> Iterator[str]:
    tensors = [operator.graph.tensors[index] for index in (*operator.inputs, *operator.outputs)]
    # The kernel gives the output its second input's type, so the first may come with another one.
    kind = TensorType(tensors[1].type)
    largest = _LARGEST_SUM.get(kind)
    scales = [_scale(data, tensor) for tensor in tensors]
    # Sums of int16 without any scale are sums of integers.
    plain = kind == TensorType.INT16 and not any(scales)
    if largest is None or plain:
        return
    left, right, divisor = (scale or 0 for scale in scales)
    if min(left, right, divisor) <= 0 or max(left, right) / divisor >= largest:
        yield _ratio(max(left, right), divisor)


def _square(data: bytes, operator: Operator) -> Iterator[str]:
    tensors = [operator.graph.tensors[index] for index in (*operator.inputs, *operator.outputs)]
    if tensors[0].type not in _BYTES:
        return
    left, right, divisor = (_scale(data, tensor) or 0 for tensor in tensors)
    if min(left, right, divisor) <= 0 or max(left, right) ** 2 / divisor >= _LARGEST_SQUARE:
        yield _ratio(max(left, right) ** 2, divisor)


def _comparison(data: bytes, operator: Operator) -> Iterator[str]:
    tensors = [operator.graph.tensors[index] for index in operator.inputs]
    scales = [_scale(data, tensor) for tensor in tensors]
    kind = tensors[0].type
    if kind not in _BYTES and not (kind == TensorType.INT16 and any(scales)):
        return
    for tensor, scale in zip(tensors, scales, strict=True):
        if not 0 < (scale or 0) < 1:
            yield f"compares tensor {tensor.index} with the scale {scale or 0:g}, no fraction"


def _ratio(dividend: float, divisor: float) -> str:
    return f"its scales give the ratio {dividend:g} to {divisor:g}"


def _scale(data: bytes, tensor: Tensor) -> float | None:
    """A tensor's one scale; None where it has none, or several, for which kernels read 0."""
    record = tensor.record["quantization"]
    if record is None or not record["scale"] or record["scale"].length != 1:
        return None
    return _extent(data, record["scale"], "f")[0]


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
