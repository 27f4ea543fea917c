"""Models of one operator each, so that mutants reach many kernels and their rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from loader_service.writer.subgraph import SubgraphWriter
from loader_service.writer.tensors import Quantization, Tensor

_FLOAT, _INT32, _INT8 = TensorType.FLOAT32, TensorType.INT32, TensorType.INT8
_IMAGE = (1, 4, 4, 2)

Value = np.ndarray[Any, Any] | tuple[int, ...] | TensorType | None
"""An operand: a constant, the shape of a float32 input, an input of two elements, or none."""


Kernel = tuple[Op, Sequence[Value], Sequence[tuple[int, ...]], dict[str, Any]]
"""Operator, operands, the shapes of what it gives, and its options."""


def _ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int32)


def _floats(*shape: int) -> np.ndarray[Any, Any]:
    return (np.arange(np.prod(shape, dtype=int), dtype=np.float32) / 8 - 1).reshape(shape)


def _operand(graph: SubgraphWriter, number: int, value: Value) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return graph.constant(f"c{number}", value)
    if isinstance(value, TensorType):
        return graph.input(f"x{number}", value, (2,))
    return graph.input(f"x{number}", _FLOAT, value)


def _model(
    code: Op,
    operands: Sequence[Value],
    *shapes: tuple[int, ...],
    output: TensorType = _FLOAT,
    version: int = 1,
    **options: Any,
) -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    inputs = [_operand(graph, number, value) for number, value in enumerate(operands)]
    results = [graph.tensor(f"y{number}", output, shape) for number, shape in enumerate(shapes)]
    graph.operator(code, inputs, results, version=version, **options)
    graph.output(*results)
    return model.write()


def kernel_models() -> Iterator[tuple[str, bytes]]:
    """Yield a name and a model for each kernel."""
    for code, operands, shapes, options in _KERNELS:
        yield code.name.lower(), _model(code, operands, *shapes, **options)
    yield "quantized_conv", _quantized_convolution()
    yield "quantized_joined", _quantized_join()


_NEAR: dict[str, Any] = {"stride_w": 1, "stride_h": 1}
_POOL: dict[str, Any] = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
_PADDINGS = np.array([[0, 0], [1, 1], [1, 0], [0, 0]], np.int32)
_HALF = (1, 2, 2, 2)

_KERNELS: tuple[Kernel, ...] = (
    (Op.CONV_2D, [_IMAGE, _floats(3, 2, 2, 2), _floats(3)], [(1, 4, 4, 3)], _NEAR),
    (
        Op.DEPTHWISE_CONV_2D,
        [_IMAGE, _floats(1, 2, 2, 4), _floats(4)],
        [(1, 4, 4, 4)],
        {**_NEAR, "depth_multiplier": 2},
    ),
    (
        Op.TRANSPOSE_CONV,
        [_ints(1, 8, 8, 3), _floats(3, 2, 2, 2), _IMAGE],
        [(1, 8, 8, 3)],
        {"stride_w": 2, "stride_h": 2},
    ),
    (
        Op.CONV_3D,
        [(1, 2, 2, 2, 1), _floats(1, 1, 1, 1, 2), _floats(2)],
        [(1, 2, 2, 2, 2)],
        {**_NEAR, "stride_d": 1},
    ),
    (Op.AVERAGE_POOL_2D, [_IMAGE], [_HALF], _POOL),
    (Op.MAX_POOL_2D, [_IMAGE], [_HALF], _POOL),
    (Op.L2_POOL_2D, [_IMAGE], [_HALF], _POOL),
    (Op.FULLY_CONNECTED, [(2, 4), _floats(3, 4), _floats(3)], [(2, 3)], {}),
    (Op.BATCH_MATMUL, [(2, 2, 3), (2, 3, 4)], [(2, 2, 4)], {}),
    (Op.ADD, [(2, 3), (3,)], [(2, 3)], {}),
    (Op.MUL, [(2, 1, 3), _floats(2, 1)], [(2, 2, 3)], {}),
    (Op.DIV, [(2, 3), (2, 3)], [(2, 3)], {}),
    (Op.SUB, [(2, 3), (2, 3)], [(2, 3)], {}),
    (Op.FLOOR_DIV, [(2, 3), (2, 3)], [(2, 3)], {}),
    (Op.MAXIMUM, [(2, 3), (1,)], [(2, 3)], {}),
    (Op.SQUARED_DIFFERENCE, [(2, 3), (3,)], [(2, 3)], {}),
    (Op.CONCATENATION, [(1, 2), (1, 3), _floats(1, 1)], [(1, 6)], {"axis": 1}),
    (Op.PACK, [(2,), (2,)], [(2, 2)], {"values_count": 2, "axis": 0}),
    (Op.UNPACK, [(2, 3)], [(3,), (3,)], {"num": 2, "axis": 0}),
    (Op.SPLIT, [np.array(1, np.int32), (2, 4)], [(2, 2), (2, 2)], {"num_splits": 2}),
    (
        Op.SPLIT_V,
        [(2, 4), _ints(1, 3), np.array(1, np.int32)],
        [(2, 1), (2, 3)],
        {"num_splits": 2},
    ),
    (Op.RESHAPE, [(2, 6), _ints(3, 4)], [(3, 4)], {"new_shape": (3, 4)}),
    (Op.SQUEEZE, [(1, 3, 1)], [(3,)], {"squeeze_dims": (0, 2)}),
    (Op.EXPAND_DIMS, [(3,), np.array(0, np.int32)], [(1, 3)], {}),
    (Op.TRANSPOSE, [(2, 3, 4), _ints(2, 0, 1)], [(4, 2, 3)], {}),
    (Op.PAD, [_IMAGE, _PADDINGS], [(1, 6, 5, 2)], {}),
    (Op.PADV2, [_IMAGE, _PADDINGS, _floats(1)], [(1, 6, 5, 2)], {}),
    (Op.MIRROR_PAD, [_IMAGE, _PADDINGS], [(1, 6, 5, 2)], {"mode": 0}),
    (Op.TILE, [(2, 3), _ints(2, 1)], [(4, 3)], {}),
    (Op.BROADCAST_TO, [(1, 3), _ints(2, 3)], [(2, 3)], {"version": 2}),
    (Op.SLICE, [(4, 4), _ints(1, 0), _ints(2, 3)], [(2, 3)], {}),
    (
        Op.STRIDED_SLICE,
        [(4, 4), _ints(0, 1), _ints(4, 4), _ints(2, 1)],
        [(2, 3)],
        {"shrink_axis_mask": 0},
    ),
    (Op.GATHER, [(4, 3), _ints(3, 0)], [(2, 3)], {"axis": 0}),
    (Op.GATHER_ND, [(4, 3), np.array([[1, 2], [3, 0]], np.int32)], [(2,)], {}),
    (Op.SCATTER_ND, [np.array([[1], [3]], np.int32), (2,), _ints(5)], [(5,)], {}),
    (Op.SPACE_TO_BATCH_ND, [_IMAGE, _ints(2, 2), np.zeros((2, 2), np.int32)], [(4, 2, 2, 2)], {}),
    (Op.BATCH_TO_SPACE_ND, [(4, 2, 2, 2), _ints(2, 2), np.zeros((2, 2), np.int32)], [_IMAGE], {}),
    (Op.SPACE_TO_DEPTH, [_IMAGE], [(1, 2, 2, 8)], {"block_size": 2}),
    (Op.DEPTH_TO_SPACE, [(1, 2, 2, 8)], [_IMAGE], {"block_size": 2}),
    (Op.RESIZE_BILINEAR, [_IMAGE, _ints(3, 5)], [(1, 3, 5, 2)], {}),
    (Op.RESIZE_NEAREST_NEIGHBOR, [_IMAGE, _ints(3, 5)], [(1, 3, 5, 2)], {}),
    (Op.MEAN, [_IMAGE, _ints(1, 2)], [(1, 2)], {}),
    (Op.SUM, [_IMAGE, _ints(1, -1)], [(1, 1, 4, 1)], {"keep_dims": True}),
    (Op.REDUCE_MAX, [_IMAGE, _ints(1)], [(1, 4, 2)], {}),
    (Op.CUMSUM, [(2, 3), np.array(1, np.int32)], [(2, 3)], {}),
    (Op.REVERSE_V2, [(2, 3), _ints(1)], [(2, 3)], {}),
    (
        Op.REVERSE_SEQUENCE,
        [(2, 3), _ints(1, 3)],
        [(2, 3)],
        {"seq_dim": 1, "batch_dim": 0},
    ),
    (Op.SOFTMAX, [(2, 3)], [(2, 3)], {"beta": 1.0}),
    (Op.LOG_SOFTMAX, [(2, 3)], [(2, 3)], {}),
    (Op.L2_NORMALIZATION, [(2, 3)], [(2, 3)], {}),
    (Op.LOCAL_RESPONSE_NORMALIZATION, [_IMAGE], [_IMAGE], {"radius": 1, "beta": 0.5}),
    (Op.PRELU, [_IMAGE, _floats(1, 1, 2)], [_IMAGE], {}),
    (Op.LEAKY_RELU, [(2, 3)], [(2, 3)], {"alpha": 0.5}),
    (Op.SEGMENT_SUM, [(4, 2), _ints(0, 0, 1, 2)], [(3, 2)], {}),
    (
        Op.UNSORTED_SEGMENT_SUM,
        [(4, 2), _ints(0, 2, 1, 0), np.array(3, np.int32)],
        [(3, 2)],
        {},
    ),
    (Op.EMBEDDING_LOOKUP, [_ints(1, 0), _floats(3, 2)], [(2, 2)], {}),
    (Op.DYNAMIC_UPDATE_SLICE, [(4, 4), (2, 2), _ints(1, 1)], [(4, 4)], {}),
    (Op.MATRIX_DIAG, [(2, 3)], [(2, 3, 3)], {}),
    (Op.SELECT_V2, [np.array([True, False]), (2, 2), (2,)], [(2, 2)], {}),
    (Op.FILL, [_ints(2, 3), np.array(1.5, np.float32)], [(2, 3)], {}),
)  # fmt: skip


def _quantized_convolution() -> bytes:
    """A convolution of int8 with a scale for each channel, and the pool that follows it."""
    model = ModelWriter()
    graph = model.subgraph()
    usual = Quantization.per_tensor(0.5)
    x = graph.input("x", _INT8, _IMAGE, quantization=usual)
    weights = graph.constant(
        "weights",
        np.arange(8, dtype=np.int8).reshape(2, 2, 1, 2),
        quantization=Quantization.per_channel([0.1, 0.2], 0),
    )
    bias = graph.constant(
        "bias", _ints(1, -1), quantization=Quantization.per_channel([0.05, 0.1], 0)
    )
    middle = graph.tensor("middle", _INT8, _IMAGE, quantization=usual)
    y = graph.tensor("y", _INT8, _HALF, quantization=usual)
    graph.operator(Op.CONV_2D, [x, weights, bias], [middle], version=3, **_NEAR)
    graph.operator(Op.MAX_POOL_2D, [middle], [y], version=2, **_POOL)
    graph.output(y)
    return model.write()


def _quantized_join() -> bytes:
    """Two int8 tensors of different scales, joined, and made float32 again."""
    model = ModelWriter()
    graph = model.subgraph()
    parts = [
        graph.input(
            f"x{number}", _INT8, (1, 2), quantization=Quantization.per_tensor(scale, number)
        )
        for number, scale in enumerate((0.5, 0.25))
    ]
    joined = graph.tensor("joined", _INT8, (1, 4), quantization=Quantization.per_tensor(0.5))
    y = graph.tensor("y", _FLOAT, (1, 4))
    graph.operator(Op.CONCATENATION, parts, [joined], version=2, axis=1)
    graph.operator(Op.DEQUANTIZE, [joined], [y], version=2)
    graph.output(y)
    return model.write()
