"""Gives a network random weights that behave like trained ones, and measures its value ranges.

Each layer's output over a few seeded images is brought to one mean and deviation in every channel,
as batch normalization does, by folding scale and shift into its weights. So no layer's values die
out or saturate, different images get different answers, and the ranges that int8 needs are known.
Before ReLU6 the mean is half a deviation above 0. Tried from -0.5 to 3, that is where int8 follows
float32 best: lower, more is lost to the nonlinearity; higher, more to the rounding of weights.
All is NumPy and float32; images are NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .mobilenet_layers import IMAGE_SIZE, Kind, Layer

Floats = NDArray[np.float32]

_IMAGES = 16
_RELU6 = 6.0
_MEAN_BEFORE_RELU6 = 0.5
# Other images reach a little further than the calibration's.
_HEADROOM = 1.5
_DEVIATION_OF_LOGITS = 3.0


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A layer's weights in the writer's layout (None where it has none) and its output's range."""

    weights: Floats | None
    bias: Floats | None
    low: float
    high: float


@lru_cache(maxsize=2)
def calibrate(layers: tuple[Layer, ...], seed: int) -> tuple[Calibrated, ...]:
    """Weights and ranges for each layer, the same for the same seed.

    The last two answers are kept: the float32 and the int8 network are written from one.
    """
    random = np.random.default_rng(seed)
    values: list[Floats] = [sample_images(random, _IMAGES)]
    # A value is dropped when nothing needs it any more: early ones are large.
    last_use = {
        source: number for number, layer in enumerate(layers, 1) for source in layer.sources
    }
    results = []
    for number, layer in enumerate(layers, 1):
        result, value = _run(layer, [values[source] for source in layer.sources], random)
        results.append(result)
        values.append(value)
        for source in layer.sources:
            if last_use[source] == number:
                values[source] = np.zeros(0, np.float32)
    return tuple(results)


def sample_images(random: np.random.Generator, count: int) -> Floats:
    """Tinted noise, coarse and fine, from -1 to 1: float32[count, 224, 224, 3]."""
    image = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    for cells in (1, 7, IMAGE_SIZE):
        block = IMAGE_SIZE // cells
        noise = random.uniform(-1, 1, (count, cells, cells, 3)).astype(np.float32)
        image += noise.repeat(block, axis=1).repeat(block, axis=2)
    return np.clip(image, -1, 1)


def _run(
    layer: Layer, sources: Sequence[Floats], random: np.random.Generator
) -> tuple[Calibrated, Floats]:
    """One layer's weights and range, and its output."""
    source = sources[0]
    weights: Floats | None = None
    bias: Floats | None = None
    if layer.kind is Kind.ADD:
        value = source + sources[1]
    elif layer.kind is Kind.MEAN:
        value = source.mean(axis=(1, 2))
    elif layer.kind is Kind.DENSE:
        weights = _random_weights(random, (layer.channels, source.shape[-1]))
        # Equal features tell nothing: the differences between images are what is made large.
        spread = (source - source.mean(axis=0)) @ weights.T
        weights *= np.float32(_DEVIATION_OF_LOGITS / spread.std())
        bias = -(source.mean(axis=0) @ weights.T)
        value = source @ weights.T + bias
    else:
        weights, value = _convolve(layer, source, random)
        scale = 1 / value.std(axis=(0, 1, 2))
        mean = np.float32(_MEAN_BEFORE_RELU6 if layer.relu6 else 0)
        bias = mean - value.mean(axis=(0, 1, 2)) * scale
        # The channel is the last dimension of depthwise weights, else the first.
        depthwise = layer.kind is Kind.DEPTHWISE
        weights = weights * (scale if depthwise else scale[:, None, None, None])
        value = value * scale + bias
        if layer.relu6:
            value = np.clip(value, 0, _RELU6)
    if layer.relu6:
        return Calibrated(weights, bias, 0, _RELU6), value
    low, high = float(value.min()) * _HEADROOM, float(value.max()) * _HEADROOM
    return Calibrated(weights, bias, low, high), value


def _convolve(layer: Layer, source: Floats, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Random weights, and the layer's output before it is normalized."""
    channels = source.shape[-1]
    kernel = layer.kernel
    if layer.kind is Kind.DEPTHWISE:
        weights = _random_weights(random, (1, kernel, kernel, channels), kernel * kernel)
        # A blur with noise: kernels of mean 0 keep edges only, and images would look all alike.
        weights += np.float32(1 / kernel)
        size = -(-source.shape[1] // layer.stride)
        value = np.zeros((len(source), size, size, channels), np.float32)
        for tap, window in zip(weights[0].reshape(-1, channels), _taps(source, layer), strict=True):
            value += window * tap
        return weights, value
    weights = _random_weights(random, (layer.channels, kernel, kernel, channels))
    taps = weights.reshape(layer.channels, -1, channels).transpose(1, 2, 0)
    size = -(-source.shape[1] // layer.stride)
    value = np.zeros((len(source) * size * size, layer.channels), np.float32)
    for tap, window in zip(taps, _taps(source, layer), strict=True):
        # One large product is many times faster than one for each row of each image.
        value += window.reshape(-1, channels) @ tap
    return weights, value.reshape(len(source), size, size, layer.channels)


def _taps(source: Floats, layer: Layer) -> list[Floats]:
    """For each place of the kernel, row by row, the pixels it meets (padding SAME)."""
    kernel, stride = layer.kernel, layer.stride
    size = -(-source.shape[1] // stride)
    padding = max((size - 1) * stride + kernel - source.shape[1], 0)
    edge = (padding // 2, padding - padding // 2)
    padded = np.pad(source, ((0, 0), edge, edge, (0, 0)))
    reach = (size - 1) * stride + 1
    return [
        padded[:, row : row + reach : stride, column : column + reach : stride]
        for row in range(kernel)
        for column in range(kernel)
    ]


def _random_weights(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None
) -> Floats:
    """Normal weights whose sum of products keeps the deviation of its inputs."""
    deviation = 1 / np.sqrt(np.prod(shape[1:]) if fan_in is None else fan_in)
    return random.standard_normal(shape, np.float32) * np.float32(deviation)
