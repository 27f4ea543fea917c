"""The digit classifier and its gradients, in NumPy.

Convolution 3 × 3, ReLU, convolution 3 × 3, ReLU, maximum of 2 × 2, dense, ReLU, dense. Images are
float32[batch, 8, 8, 1] with values from 0 to 1; the answer is float32[batch, 10], before softmax.
Weights are laid out as TFLite wants them: output channels first, input channels last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Parameters = dict[str, Array]

SIZE = 8
CLASSES = 10
KERNEL = 3
FIRST_CHANNELS = 12
SECOND_CHANNELS = 24
HIDDEN_UNITS = 48
_POOLED = (SIZE // 2) ** 2 * SECOND_CHANNELS


def initial_parameters(random: np.random.Generator) -> Parameters:
    """Weights scaled for ReLU (He and others, 2015), biases 0; all float32."""
    shapes = {
        "first": (FIRST_CHANNELS, KERNEL, KERNEL, 1),
        "second": (SECOND_CHANNELS, KERNEL, KERNEL, FIRST_CHANNELS),
        "hidden": (HIDDEN_UNITS, _POOLED),
        "output": (CLASSES, HIDDEN_UNITS),
    }
    parameters: Parameters = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        parameters[f"{name}/weights"] = (random.standard_normal(shape) * scale).astype(np.float32)
        parameters[f"{name}/bias"] = np.zeros(shape[0], np.float32)
    return parameters


@dataclass(frozen=True)
class Activations:
    """What the forward pass keeps for the backward pass."""

    first_windows: Array
    first: Array
    second_windows: Array
    second: Array
    pooled: Array
    hidden: Array
    logits: Array


def forward(parameters: Parameters, images: Array) -> Activations:
    """Run the network."""
    first_windows = _windows(images)
    first = _convolve(first_windows, parameters, "first")
    second_windows = _windows(first)
    second = _convolve(second_windows, parameters, "second")
    half = SIZE // 2
    pooled = second.reshape(-1, half, 2, half, 2, SECOND_CHANNELS).max(axis=(2, 4))
    hidden = np.maximum(
        pooled.reshape(-1, _POOLED) @ parameters["hidden/weights"].T + parameters["hidden/bias"], 0
    )
    logits = hidden @ parameters["output/weights"].T + parameters["output/bias"]
    return Activations(first_windows, first, second_windows, second, pooled, hidden, logits)


def loss_and_gradients(
    parameters: Parameters, images: Array, labels: NDArray[np.integer]
) -> tuple[float, Parameters]:
    """Mean cross-entropy of the softmax, and its gradient for every parameter."""
    run = forward(parameters, images)
    count = len(images)
    shifted = run.logits - run.logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    loss = float(-np.log(probabilities[np.arange(count), labels]).mean())

    gradients: Parameters = {}
    error = probabilities
    error[np.arange(count), labels] -= 1
    error /= count
    gradients["output/weights"] = error.T @ run.hidden
    gradients["output/bias"] = error.sum(axis=0)

    error = (error @ parameters["output/weights"]) * (run.hidden > 0)
    gradients["hidden/weights"] = error.T @ run.pooled.reshape(count, -1)
    gradients["hidden/bias"] = error.sum(axis=0)

    error = (error @ parameters["hidden/weights"]).reshape(run.pooled.shape)
    error = _unpool(error, run) * (run.second > 0)
    _convolution_gradients(gradients, "second", run.second_windows, error)

    error = _from_windows(error @ parameters["second/weights"].reshape(SECOND_CHANNELS, -1))
    error = error * (run.first > 0)
    _convolution_gradients(gradients, "first", run.first_windows, error)
    return loss, gradients


def _windows(images: Array) -> Array:
    """The 3 × 3 window around each pixel, flattened: batch, height, width, 9 × channels."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*images.shape[:3], -1)


def _from_windows(windows: Array) -> Array:
    """The transpose of `_windows`: each pixel gathers what its windows say of it."""
    batch = len(windows)
    parts = windows.reshape(batch, SIZE, SIZE, KERNEL, KERNEL, -1)
    padded = np.zeros((batch, SIZE + 2, SIZE + 2, parts.shape[-1]), windows.dtype)
    for row in range(KERNEL):
        for column in range(KERNEL):
            padded[:, row : row + SIZE, column : column + SIZE] += parts[:, :, :, row, column]
    return padded[:, 1:-1, 1:-1]


def _convolve(windows: Array, parameters: Parameters, name: str) -> Array:
    """Convolution and ReLU."""
    weights = parameters[f"{name}/weights"]
    result = windows @ weights.reshape(len(weights), -1).T + parameters[f"{name}/bias"]
    return np.maximum(result, 0)


def _convolution_gradients(gradients: Parameters, name: str, windows: Array, error: Array) -> None:
    channels = error.shape[-1]
    flat = error.reshape(-1, channels)
    weights = flat.T @ windows.reshape(len(flat), -1)
    gradients[f"{name}/weights"] = weights.reshape(channels, KERNEL, KERNEL, -1)
    gradients[f"{name}/bias"] = flat.sum(axis=0)


def _unpool(error: Array, run: Activations) -> Array:
    """Give each maximum's error to the pixel it came from; equal pixels share it."""
    wide = run.pooled.repeat(2, axis=1).repeat(2, axis=2)
    chosen: Array = (run.second == wide).astype(error.dtype)
    half = SIZE // 2
    shares = chosen.reshape(-1, half, 2, half, 2, SECOND_CHANNELS).sum(axis=(2, 4))
    shared: Array = (error / shares).repeat(2, axis=1).repeat(2, axis=2)
    return chosen * shared
