"""Layers of a network: each appends one operator to a subgraph and gives the tensor it fills.

Images are NHWC. A layer computes the shape of its output; with `quantization` given, the output is
of its input's integer type, else it is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def _layer(
    graph: SubgraphWriter,
    code: BuiltinOperator,
    value: Tensor,
    others: Sequence[Tensor | None],
    name: str,
    shape: Shape,
    quantization: Quantization | BlockwiseQuantization | None,
    **options: Any,
) -> Tensor:
    """Append an operator on a tensor, and others; gives the tensor of that one's type it fills."""
    result = graph.tensor(name, value.type, shape, quantization=quantization)
    version = _INT8_VERSIONS.get(code, 1) if value.type is TensorType.INT8 else 1
    graph.operator(code, [value, *others], [result], version=version, **options)
    return result


def _windows(
    value: Tensor, height: int, width: int, stride: int, padding: Padding, channels: int
) -> Shape:
    """The shape of what a layer gives for each window of an image."""

    def count(size: int, window: int) -> int:
        return -(-(size if padding is Padding.SAME else size - window + 1) // stride)

    batch, image_height, image_width, _ = value.shape
    return batch, count(image_height, height), count(image_width, width), channels


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
    channels, height, width, _ = weights.shape
    return _layer(
        graph,
        BuiltinOperator.CONV_2D,
        value,
        [weights, bias],
        name,
        _windows(value, height, width, stride, padding, channels),
        quantization,
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        fused_activation_function=int(activation),
    )


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
    _, height, width, channels = weights.shape
    return _layer(
        graph,
        BuiltinOperator.DEPTHWISE_CONV_2D,
        value,
        [weights, bias],
        name,
        _windows(value, height, width, stride, padding, channels),
        quantization,
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        depth_multiplier=channels // value.shape[-1],
        fused_activation_function=int(activation),
    )


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
    return _layer(
        graph,
        BuiltinOperator.FULLY_CONNECTED,
        value,
        [weights, bias],
        name,
        shape,
        quantization,
        fused_activation_function=int(activation),
    )


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
    return _layer(
        graph,
        code,
        value,
        [],
        name,
        _windows(value, size, size, stride, padding, value.shape[-1]),
        value.quantization,
        padding=int(padding),
        stride_w=stride,
        stride_h=stride,
        filter_width=size,
        filter_height=size,
    )


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
    return _layer(
        graph,
        BuiltinOperator.MEAN,
        value,
        [indices],
        name,
        shape,
        quantization,
        keep_dims=False,
    )


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
    return _layer(
        graph,
        code,
        left,
        [right],
        name,
        shape,
        quantization,
        fused_activation_function=int(activation),
    )


def softmax(
    graph: SubgraphWriter, value: Tensor, name: str, *, quantization: Quantization | None = None
) -> Tensor:
    """Softmax over the last dimension; an int8 result needs scale 1/256 and zero point -128."""
    return _layer(
        graph,
        BuiltinOperator.SOFTMAX,
        value,
        [],
        name,
        value.shape,
        quantization,
        beta=1.0,
    )


def reshape(graph: SubgraphWriter, value: Tensor, shape: Shape, name: str) -> Tensor:
    """The same elements in another shape; -1 once for what the other dimensions leave."""
    sizes = graph.constant(f"{name}/shape", np.array(shape, np.int32))
    known = -int(np.prod(shape)) if -1 in shape else 0
    count = int(np.prod(value.shape))
    static = tuple(count // known if size == -1 else size for size in shape)
    return _layer(
        graph,
        BuiltinOperator.RESHAPE,
        value,
        [sizes],
        name,
        static,
        value.quantization,
        new_shape=shape,
    )
