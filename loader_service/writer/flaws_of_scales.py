"""Models whose scales crashed a runtime: found by fuzzing, and refused by the verifier since.

What each did was seen in LiteRT 2.3.0 or tflite-runtime 2.14.0.
"""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType

from .model import ModelWriter
from .one_operator import Regression, ints
from .tensors import Quantization

_INT8 = TensorType.INT8


def scale_without_shift() -> bytes:
    """A scale of 1e30, that no kernel's shift holds: LiteRT frees twice in a larger network."""
    return _scaled(1e30, 0)


def scale_of_nan() -> bytes:
    """A scale that is no number: tflite-runtime aborted on it in a larger network."""
    return _scaled(float("nan"), 0)


def zero_point_outside() -> bytes:
    """A zero point of 65535 for int8: LiteRT crashed on it in a larger network."""
    return _scaled(1.0, 65535)


def ratio_of_scales() -> bytes:
    """Scales that are ordinary alone, of input 1e6, weights 1e6, output 1e-6."""
    each = [Quantization.per_tensor(scale) for scale in (1e6, 1e6, 1e-6)]
    return _quantized(*each)


def sum_without_shift() -> bytes:
    """ADD of int16 with an output scale of 1e-30: both runtimes abort."""
    model = ModelWriter()
    graph = model.subgraph()
    kind, usual = TensorType.INT16, Quantization.per_tensor(1.0)
    x = graph.input("x", kind, (1, 32, 32), quantization=usual)
    y = graph.tensor("y", kind, (1, 32, 32), quantization=Quantization.per_tensor(1e-30))
    graph.operator(Op.ADD, [x, x], [y], version=2, pot_scale_int16=False)
    graph.output(y)
    return model.write()


def _scaled(scale: float, zero_point: int) -> bytes:
    usual = Quantization.per_tensor(1.0)
    return _quantized(Quantization.per_tensor(scale, zero_point), usual, usual)


def _quantized(image: Quantization, weights: Quantization, result: Quantization) -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _INT8, (1, 2, 2, 1), quantization=image)
    kernel = graph.constant("weights", np.ones((1, 1, 1, 1), np.int8), quantization=weights)
    y = graph.tensor("y", _INT8, (1, 2, 2, 1), quantization=result)
    bias = ints(graph, "bias", 0)
    graph.operator(Op.CONV_2D, [x, kernel, bias], [y], version=3, stride_w=1, stride_h=1)
    graph.output(y)
    return model.write()


def sum_without_scale() -> bytes:
    """ADD of int8 without quantization: both runtimes abort."""
    return _of_bytes(Op.ADD, None, None)


def sum_of_wide_scales() -> bytes:
    """ADD of int8 with the scale 2²⁰ of an input and 1 of the output: both runtimes abort."""
    return _of_bytes(Op.ADD, 2.0**20, 1.0)


def square_without_scale() -> bytes:
    """SQUARED_DIFFERENCE of int8 without quantization: both runtimes abort."""
    return _of_bytes(Op.SQUARED_DIFFERENCE, None, None)


def compared_by_whole_scale() -> bytes:
    """EQUAL of int8 with the scale 1, which kernels take for a fraction: both runtimes abort."""
    return _of_bytes(Op.EQUAL, 1.0, None, TensorType.BOOL)


def scale_of_zero() -> bytes:
    """QUANTIZE from the scale 0: LiteRT crashes."""
    return _of_bytes(Op.QUANTIZE, 0.0, 1.0)


def root_without_scale() -> bytes:
    """RSQRT of int16 without quantization: LiteRT crashes."""
    return _of_bytes(Op.RSQRT, None, None, TensorType.INT16, TensorType.INT16)


def _of_bytes(
    code: Op,
    scale: float | None,
    result: float | None,
    output: TensorType = _INT8,
    kind: TensorType = _INT8,
) -> bytes:
    """One operator whose inputs are one tensor."""
    scales = [None if each is None else Quantization.per_tensor(each) for each in (scale, result)]
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", kind, (1, 8), quantization=scales[0])
    y = graph.tensor("y", output, (1, 8), quantization=scales[1])
    unary = code in (Op.QUANTIZE, Op.RSQRT)
    graph.operator(code, [x] if unary else [x, x], [y], version=2)
    graph.output(y)
    return model.write()


FLAWS_OF_SCALES = (
    Regression(
        scale_without_shift, "a double free in LiteRT 2.3.0", r"'x': its scales reach from 1e"
    ),
    Regression(scale_of_nan, "an abort of tflite-runtime 2.14", "'x': its scales reach from nan"),
    Regression(zero_point_outside, "a crash of LiteRT 2.3.0", "zero points reach from 65535"),
    Regression(ratio_of_scales, "class: float exceptions", "the ratio 1e[+]12 to 1e-06"),
    Regression(sum_without_shift, "an abort of both runtimes", "the ratio 1 to 1e-30"),
    Regression(sum_without_scale, "an abort of both runtimes", "the ratio 0 to 0"),
    Regression(sum_of_wide_scales, "an abort of both runtimes", r"the ratio 1\.04858e[+]06 to 1"),
    Regression(square_without_scale, "an abort of both runtimes", "the ratio 0 to 0"),
    Regression(compared_by_whole_scale, "an abort of both runtimes", "the scale 1, no fraction"),
    Regression(scale_of_zero, "a crash of LiteRT 2.3.0", "has no scale to divide by"),
    Regression(root_without_scale, "a crash of LiteRT 2.3.0", "has no scale to divide by"),
)
"""With the words of their refusal (a regular expression)."""
