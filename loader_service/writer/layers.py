"""Layers of a network: each appends one operator to a subgraph and gives the tensor it fills.

Images are NHWC. A layer computes the shape of its output; with `quantization` given, the output is
of its input's integer type, else it is float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_options import Activation, Padding
from loader_service.runtime.schema_tensor_types import TensorType

from .subgraph import SubgraphWriter
from .tensors import BlockwiseQuantization, Quantization, Shape, Tensor

# The first version of each operator whose int8 kernel the converter of TFLite names.
_INT8_VERSIONS = {
    BuiltinOperator.ADD: 2,
    BuiltinOperator.AVERAGE_POOL_2D: 2,
    BuiltinOperator.CONV_2D: 3,
    BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    BuiltinOperator.FULLY_CONNECTED: 4,
    BuiltinOperator.MAX_POOL_2D: 2,
    BuiltinOperator.MEAN: 2,
    BuiltinOperator.MUL: 2,
    BuiltinOperator.SOFTMAX: 2,
}


def _version(code: BuiltinOperator, tensor: Tensor) -> int:
    return _INT8_VERSIONS.get(code, 1) if tensor.type is TensorType.INT8 else 1


def _result(
    graph: SubgraphWriter,
    value: Tensor,
    name: str,
    shape: Shape,
    quantization: Quantization | BlockwiseQuantization | None,
) -> Tensor:
    """A tensor of the input's type for a layer to fill."""
    return graph.tensor(name, value.type, shape, quantization=quantization)


def _window(size: int, window: int, stride: int, padding: Padding) -> int:
    """How many places a window takes along one dimension."""
    if padding is Padding.SAME:
        return -(-size // stride)
    return -(-(size - window + 1) // stride)


def conv_2d(
    graph: SubgraphWriter,
    value: Tensor,
    weights: Tensor,
    bias: Tensor,
    name: str,
    *,
    stride: int = 1,
    padding: Padding = Padding.SAME,
    activation: Activation = Activation.NONE,
    quantization: Quantization | None = None,
) -> Tensor:
    """2-D convolution. Weights: output channels, height, width, input channels."""
    batch, height, width, _ = value.shape
    channels, window_height, window_width, _ = weights.shape
    shape = (
        batch,
        _window(height, window_height, stride, padding),
        _window(width, window_width, stride, padding),
        channels,
    )
    result = _result(graph, value, name, shape, quantization)
    graph.operator(
        BuiltinOperator.CONV_2D,
        [value, weights, bias],
        [result],
        version=_version(BuiltinOperator.CONV_2D, value),
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        fused_activation_function=int(activation),
    )
    return result


def depthwise_conv_2d(
    graph: SubgraphWriter,
    value: Tensor,
    weights: Tensor,
    bias: Tensor,
    name: str,
    *,
    stride: int = 1,
    padding: Padding = Padding.SAME,
    activation: Activation = Activation.NONE,
    quantization: Quantization | None = None,
) -> Tensor:
    """Convolution of each channel by itself. Weights: 1, height, width, output channels."""
    batch, height, width, depth = value.shape
    _, window_height, window_width, channels = weights.shape
    shape = (
        batch,
        _window(height, window_height, stride, padding),
        _window(width, window_width, stride, padding),
        channels,
    )
    result = _result(graph, value, name, shape, quantization)
    graph.operator(
        BuiltinOperator.DEPTHWISE_CONV_2D,
        [value, weights, bias],
        [result],
        version=_version(BuiltinOperator.DEPTHWISE_CONV_2D, value),
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        depth_multiplier=channels // depth,
        fused_activation_function=int(activation),
    )
    return result


def fully_connected(
    graph: SubgraphWriter,
    value: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    name: str,
    *,
    activation: Activation = Activation.NONE,
    quantization: Quantization | None = None,
) -> Tensor:
    """Each row of a batch times the transposed weights. Weights: output units, input units."""
    shape = (value.shape[0], weights.shape[0])
    result = _result(graph, value, name, shape, quantization)
    graph.operator(
        BuiltinOperator.FULLY_CONNECTED,
        [value, weights, bias],
        [result],
        version=_version(BuiltinOperator.FULLY_CONNECTED, value),
        fused_activation_function=int(activation),
    )
    return result


def pool_2d(
    graph: SubgraphWriter,
    code: BuiltinOperator,
    value: Tensor,
    name: str,
    *,
    size: int,
    stride: int,
    padding: Padding = Padding.VALID,
) -> Tensor:
    """Average or maximum (`AVERAGE_POOL_2D`, `MAX_POOL_2D`) of square windows."""
    batch, height, width, channels = value.shape
    shape = (
        batch,
        _window(height, size, stride, padding),
        _window(width, size, stride, padding),
        channels,
    )
    result = _result(graph, value, name, shape, value.quantization)
    graph.operator(
        code,
        [value],
        [result],
        version=_version(code, value),
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        filter_width=size,
        filter_height=size,
    )
    return result


def mean(
    graph: SubgraphWriter,
    value: Tensor,
    axes: Sequence[int],
    name: str,
    *,
    quantization: Quantization | None = None,
) -> Tensor:
    """Mean over `axes`, which disappear."""
    indices = graph.constant(f"{name}/axes", np.array(axes, np.int32))
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    result = _result(graph, value, name, shape, quantization)
    graph.operator(
        BuiltinOperator.MEAN,
        [value, indices],
        [result],
        version=_version(BuiltinOperator.MEAN, value),
        keep_dims=False,
    )
    return result


def arithmetic(
    graph: SubgraphWriter,
    code: BuiltinOperator,
    left: Tensor,
    right: Tensor,
    name: str,
    *,
    activation: Activation = Activation.NONE,
    quantization: Quantization | None = None,
) -> Tensor:
    """`ADD`, `SUB` or `MUL` of two tensors, broadcast to one shape."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    result = _result(graph, left, name, shape, quantization)
    graph.operator(
        code,
        [left, right],
        [result],
        version=_version(code, left),
        fused_activation_function=int(activation),
    )
    return result


def softmax(
    graph: SubgraphWriter, value: Tensor, name: str, *, quantization: Quantization | None = None
) -> Tensor:
    """Softmax over the last dimension; an int8 result needs scale 1/256 and zero point -128."""
    result = _result(graph, value, name, value.shape, quantization)
    graph.operator(
        BuiltinOperator.SOFTMAX,
        [value],
        [result],
        version=_version(BuiltinOperator.SOFTMAX, value),
        beta=1.0,
    )
    return result


def reshape(graph: SubgraphWriter, value: Tensor, shape: Shape, name: str) -> Tensor:
    """The same elements in another shape; -1 once for what the other dimensions leave."""
    sizes = graph.constant(f"{name}/shape", np.array(shape, np.int32))
    known = -int(np.prod(shape)) if -1 in shape else 0
    count = int(np.prod(value.shape))
    static = tuple(count // known if size == -1 else size for size in shape)
    result = _result(graph, value, name, static, value.quantization)
    graph.operator(BuiltinOperator.RESHAPE, [value, sizes], [result], new_shape=shape)
    return result
