"""Each layer computes what NumPy does, in float32 and, within a step, in int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_options import Activation, Padding
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import layers
from loader_service.writer.model import ModelWriter
from loader_service.writer.subgraph import SubgraphWriter
from loader_service.writer.tensors import Quantization, Tensor

from .running import Runtime

Array = np.ndarray[Any, Any]
Build = Callable[[SubgraphWriter, Tensor], Tensor]

RANDOM = np.random.default_rng(11)
IMAGE = RANDOM.uniform(-1, 1, (2, 5, 6, 3)).astype(np.float32)
KERNEL = RANDOM.uniform(-1, 1, (4, 3, 3, 3)).astype(np.float32)
DEPTHWISE_KERNEL = RANDOM.uniform(-1, 1, (1, 3, 3, 6)).astype(np.float32)
BIAS = RANDOM.uniform(-1, 1, 6).astype(np.float32)
ROWS = RANDOM.uniform(-1, 1, (2, 5)).astype(np.float32)
WEIGHTS = RANDOM.uniform(-1, 1, (4, 5)).astype(np.float32)


def _run(runtime: Runtime, value: Array, build: Build) -> Array:
    """The output of a model of one layer."""
    model = ModelWriter()
    graph = model.subgraph()
    graph.output(build(graph, graph.input("x", TensorType.FLOAT32, value.shape)))
    result: Array = runtime.run(model.write(), value)[0]
    return result


def _windows(image: Array, size: int, stride: int, padding: Padding) -> Array:
    """All windows: batch, rows, columns, height, width, channels; outside is 0."""
    if padding is Padding.SAME:
        pads = [(0, 0)]
        for length in image.shape[1:3]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((total // 2, total - total // 2))
        image = np.pad(image, [*pads, (0, 0)])
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", Padding, ids=lambda padding: padding.name)
def test_conv_2d(runtime: Runtime, padding: Padding, stride: int) -> None:
    result = _run(
        runtime,
        IMAGE,
        lambda graph, x: layers.conv_2d(
            graph,
            x,
            graph.constant("weights", KERNEL),
            graph.constant("bias", BIAS[:4]),
            "y",
            stride=stride,
            padding=padding,
            activation=Activation.RELU6,
        ),
    )
    windows = _windows(IMAGE, 3, stride, padding)
    expected = np.clip(np.einsum("brchwi,ohwi->brco", windows, KERNEL) + BIAS[:4], 0, 6)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv_2d(runtime: Runtime, stride: int) -> None:
    result = _run(
        runtime,
        IMAGE,
        lambda graph, x: layers.depthwise_conv_2d(
            graph,
            x,
            graph.constant("weights", DEPTHWISE_KERNEL),
            graph.constant("bias", BIAS),
            "y",
            stride=stride,
        ),
    )
    windows = _windows(IMAGE, 3, stride, Padding.SAME).repeat(2, axis=-1)
    expected = np.einsum("brchwi,hwi->brci", windows, DEPTHWISE_KERNEL[0]) + BIAS
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_fully_connected(runtime: Runtime) -> None:
    result = _run(
        runtime,
        ROWS,
        lambda graph, x: layers.fully_connected(
            graph,
            x,
            graph.constant("weights", WEIGHTS),
            graph.constant("bias", BIAS[:4]),
            "y",
            activation=Activation.RELU,
        ),
    )
    np.testing.assert_allclose(result, np.maximum(ROWS @ WEIGHTS.T + BIAS[:4], 0), atol=1e-5)


@pytest.mark.parametrize(
    ("code", "reduce"),
    [(BuiltinOperator.AVERAGE_POOL_2D, np.mean), (BuiltinOperator.MAX_POOL_2D, np.max)],
    ids=["average", "maximum"],
)
def test_pool_2d(runtime: Runtime, code: BuiltinOperator, reduce: Callable[..., Array]) -> None:
    result = _run(
        runtime, IMAGE, lambda graph, x: layers.pool_2d(graph, code, x, "y", size=2, stride=2)
    )
    expected = reduce(_windows(IMAGE, 2, 2, Padding.VALID), axis=(3, 4))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_mean_softmax_and_reshape(runtime: Runtime) -> None:
    result = _run(runtime, IMAGE, lambda graph, x: layers.mean(graph, x, [1, 2], "y"))
    np.testing.assert_allclose(result, IMAGE.mean(axis=(1, 2)), atol=1e-6)
    result = _run(runtime, ROWS, lambda graph, x: layers.softmax(graph, x, "y"))
    exponentials = np.exp(ROWS)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    result = _run(runtime, IMAGE, lambda graph, x: layers.reshape(graph, x, (2, -1), "y"))
    np.testing.assert_array_equal(result, IMAGE.reshape(2, -1))


@pytest.mark.parametrize(
    ("code", "function"),
    [
        (BuiltinOperator.ADD, np.add),
        (BuiltinOperator.SUB, np.subtract),
        (BuiltinOperator.MUL, np.multiply),
    ],
    ids=["add", "subtract", "multiply"],
)
def test_arithmetic_broadcasts(
    runtime: Runtime, code: BuiltinOperator, function: Callable[..., Array]
) -> None:
    row = RANDOM.uniform(-1, 1, 3).astype(np.float32)
    result = _run(
        runtime,
        IMAGE,
        lambda graph, x: layers.arithmetic(graph, code, x, graph.constant("row", row), "y"),
    )
    np.testing.assert_allclose(result, function(IMAGE, row), atol=1e-6)


def test_int8_conv_2d_is_within_a_step(runtime: Runtime) -> None:
    pixel, answer = Quantization.per_tensor(1 / 64, 3), Quantization.per_tensor(1 / 4, -5)
    stored = RANDOM.integers(-60, 60, IMAGE.shape).astype(np.int8)
    scales = np.abs(KERNEL).max(axis=(1, 2, 3)) / 127
    kernel = np.rint(KERNEL / scales[:, None, None, None]).astype(np.int8)
    bias_scales = scales * pixel.scale[0]
    bias = np.rint(BIAS[:4] / bias_scales).astype(np.int32)
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.INT8, stored.shape, quantization=pixel)
    weights = graph.constant(
        "weights", kernel, quantization=Quantization.per_channel(scales.tolist(), 0)
    )
    biases = graph.constant(
        "bias", bias, quantization=Quantization.per_channel(bias_scales.tolist(), 0)
    )
    graph.output(layers.conv_2d(graph, x, weights, biases, "y", quantization=answer))
    (result,) = runtime.run(model.write(), stored)

    image = (stored.astype(np.float64) - 3) / 64
    real = np.einsum(
        "brchwi,ohwi->brco",
        _windows(image, 3, 1, Padding.SAME),
        kernel * scales[:, None, None, None],
    )
    expected = np.clip(np.rint((real + bias * bias_scales) * 4) - 5, -128, 127)
    assert len(np.unique(result)) > 20
    assert np.abs(result - expected).max() <= 1
