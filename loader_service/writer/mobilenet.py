"""MobileNet v1 and v2 (1.0, 224 × 224) with seeded random weights, in float32 and int8.

Right architecture, size and cost, meaningless classes: to measure with, not to classify. In float32
602,112 bytes go in and 4,000 come out, in int8 150,528 and 1,000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_options import Activation
from loader_service.runtime.schema_tensor_types import TensorType

from .calibration import Calibrated, Floats, calibrate
from .layers import arithmetic, conv_2d, depthwise_conv_2d, fully_connected, mean, softmax
from .mobilenet_layers import (
    IMAGE_SIZE,
    Kind,
    Layer,
    mobilenet_v1_layers,
    mobilenet_v2_layers,
)
from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Quantization, Tensor

SEED = 224

# Pixels from -1 to 1; probabilities from 0 to 1, as the int8 kernel of SOFTMAX demands.
IMAGE_QUANTIZATION = Quantization.per_tensor(1 / 127.5, -1)
PROBABILITY_QUANTIZATION = Quantization.per_tensor(1 / 256, -128)
_LOWEST, _HIGHEST = -128, 127


def mobilenet_v1(*, quantized: bool = False, seed: int = SEED) -> bytes:
    """MobileNet v1: image [1, 224, 224, 3] → probabilities [1, 1000]; float32, else int8."""
    return _write("mobilenet v1", mobilenet_v1_layers(), quantized, seed)


def mobilenet_v2(*, quantized: bool = False, seed: int = SEED) -> bytes:
    """MobileNet v2: image [1, 224, 224, 3] → probabilities [1, 1000]; float32, else int8."""
    return _write("mobilenet v2", mobilenet_v2_layers(), quantized, seed)


def _write(description: str, layers: tuple[Layer, ...], quantized: bool, seed: int) -> bytes:
    model = ModelWriter(description)
    graph = model.subgraph()
    parts: _Parts = _QuantizedParts(graph) if quantized else _FloatParts(graph)
    image = graph.input(
        "image",
        parts.type,
        (1, IMAGE_SIZE, IMAGE_SIZE, 3),
        quantization=IMAGE_QUANTIZATION if quantized else None,
    )
    values = [image]
    for layer, calibrated in zip(layers, calibrate(layers, seed), strict=True):
        values.append(_append(parts, layer, calibrated, [values[n] for n in layer.sources]))
    probabilities = softmax(
        graph,
        values[-1],
        "probabilities",
        quantization=PROBABILITY_QUANTIZATION if quantized else None,
    )
    graph.output(probabilities)
    model.signature("serving_default", graph, {"image": image}, {"probabilities": probabilities})
    return model.write()


def _append(
    parts: _Parts, layer: Layer, calibrated: Calibrated, sources: Sequence[Tensor]
) -> Tensor:
    """Append one layer to the graph."""
    graph, source = parts.graph, sources[0]
    quantization = parts.output(calibrated, sources)
    if layer.kind is Kind.ADD:
        return arithmetic(
            graph, BuiltinOperator.ADD, source, sources[1], layer.name, quantization=quantization
        )
    if layer.kind is Kind.MEAN:
        return mean(graph, source, [1, 2], layer.name, quantization=quantization)
    weights, bias = parts.constants(layer, calibrated, source)
    if layer.kind is Kind.DENSE:
        return fully_connected(graph, source, weights, bias, layer.name, quantization=quantization)
    convolve: Callable[..., Tensor] = depthwise_conv_2d if layer.kind is Kind.DEPTHWISE else conv_2d
    return convolve(
        graph,
        source,
        weights,
        bias,
        layer.name,
        stride=layer.stride,
        activation=Activation.RELU6 if layer.relu6 else Activation.NONE,
        quantization=quantization,
    )


@dataclass(frozen=True, slots=True)
class _FloatParts:
    """Constants of a float32 network."""

    graph: SubgraphWriter
    type = TensorType.FLOAT32

    def output(self, calibrated: Calibrated, sources: Sequence[Tensor]) -> None:
        """No quantization."""

    def constants(
        self, layer: Layer, calibrated: Calibrated, source: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights and bias as they are."""
        assert calibrated.weights is not None
        assert calibrated.bias is not None
        return (
            self.graph.constant(f"{layer.name}/weights", calibrated.weights),
            self.graph.constant(f"{layer.name}/bias", calibrated.bias),
        )


@dataclass(frozen=True, slots=True)
class _QuantizedParts:
    """Constants and ranges of an int8 network, by the rules of TFLite's quantization scheme."""

    graph: SubgraphWriter
    type = TensorType.INT8

    def output(self, calibrated: Calibrated, sources: Sequence[Tensor]) -> Quantization:
        """The scale and zero point that cover the range; zero is exact."""
        low, high = min(calibrated.low, 0.0), max(calibrated.high, 0.0)
        scale = (high - low) / (_HIGHEST - _LOWEST)
        return Quantization.per_tensor(scale, round(_LOWEST - low / scale))

    def constants(
        self, layer: Layer, calibrated: Calibrated, source: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights int8 and symmetric; bias int32 with the scale of input times weights.

        Convolutions have a scale for each output channel. Dense weights have one for all: kernels
        before 2023 know no other.
        """
        assert calibrated.weights is not None
        assert calibrated.bias is not None
        assert isinstance(source.quantization, Quantization)
        weights = calibrated.weights
        dimension = weights.ndim - 1 if layer.kind is Kind.DEPTHWISE else 0
        scales = _scales(weights, dimension, single=layer.kind is Kind.DENSE)
        shape = [1] * weights.ndim
        shape[dimension] = -1
        stored = np.rint(weights / scales.reshape(shape)).astype(np.int8)
        bias_scales = (scales * np.float32(source.quantization.scale[0])).tolist()
        bias = np.rint(calibrated.bias / np.array(bias_scales)).astype(np.int32)
        return (
            self.graph.constant(
                f"{layer.name}/weights",
                stored,
                quantization=Quantization.per_channel(scales.tolist(), dimension),
            ),
            self.graph.constant(
                f"{layer.name}/bias", bias, quantization=Quantization.per_channel(bias_scales, 0)
            ),
        )


_Parts = _FloatParts | _QuantizedParts


def _scales(weights: Floats, dimension: int, *, single: bool) -> Floats:
    """The scale of each channel, or one of all, by the largest weight; float32 as files hold it."""
    others = tuple(axis for axis in range(weights.ndim) if single or axis != dimension)
    largest = np.abs(weights).max(axis=others)
    return np.atleast_1d(largest / np.float32(_HIGHEST)).astype(np.float32)
