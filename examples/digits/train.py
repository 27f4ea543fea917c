"""Trains the digit classifier and writes `digits.tflite` and `held_back.npz` beside this file.

Run ``python -m examples.digits.train`` in the project's folder; it needs the extras `[train]` and
`[service]`, and less than two minutes. A fifth of the images is held back and never trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .export import write_model
from .network import (
    SIZE,
    Array,
    Parameters,
    forward,
    initial_parameters,
    loss_and_gradients,
)

FOLDER = Path(__file__).parent
SEED = 7
HELD_BACK = 360
EPOCHS = 60
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
LARGEST_PIXEL = 16

Labels = NDArray[np.uint8]


def load_digits() -> tuple[NDArray[np.uint8], Labels]:
    """All 1,797 images (values 0 to 16) and their labels, from the copy in scikit-learn."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.uint8)


def as_input(images: NDArray[np.uint8]) -> Array:
    """Images as the network takes them: float32[batch, 8, 8, 1], from 0 to 1."""
    return (images.astype(np.float32) / LARGEST_PIXEL)[..., np.newaxis]


def train(
    images: Array, labels: Labels, random: np.random.Generator, epochs: int = EPOCHS
) -> Parameters:
    """Train by Adam (Kingma and Ba, 2015) with a falling rate, on images moved by up to a pixel."""
    parameters = initial_parameters(random)
    mean = {name: np.zeros_like(value) for name, value in parameters.items()}
    square = {name: np.zeros_like(value) for name, value in parameters.items()}
    steps = epochs * (len(images) // BATCH)
    step = 0
    for epoch in range(epochs):
        order = random.permutation(len(images))
        losses = []
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss, gradients = loss_and_gradients(
                parameters, _moved(images[chosen], random), labels[chosen]
            )
            losses.append(loss)
            step += 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for name, gradient in gradients.items():
                mean[name] += 0.1 * (gradient - mean[name])
                square[name] += 0.001 * (gradient**2 - square[name])
                direction = (mean[name] / (1 - 0.9**step)) / (
                    np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
                )
                decayed = direction + WEIGHT_DECAY * parameters[name]
                parameters[name] -= (rate * decayed).astype(np.float32)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    return parameters


def _moved(images: Array, random: np.random.Generator) -> Array:
    """Each image moved by -1, 0 or 1 pixel each way, with paper moved in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.empty_like(images)
    for index, (row, column) in enumerate(random.integers(0, 3, (len(images), 2))):
        result[index] = padded[index, row : row + SIZE, column : column + SIZE]
    return result


def split(count: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images are held back, and which are trained on."""
    order = random.permutation(count)
    return order[:HELD_BACK], order[HELD_BACK:]


def accuracy(parameters: Parameters, images: Array, labels: Labels) -> float:
    """The share of images whose largest answer is their label."""
    return float((forward(parameters, images).logits.argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, measure, and write both files."""
    images, labels = load_digits()
    random = np.random.default_rng(SEED)
    held_back, trained = split(len(images), random)
    parameters = train(as_input(images[trained]), labels[trained], random)
    for name, chosen in (("trained", trained), ("held back", held_back)):
        share = accuracy(parameters, as_input(images[chosen]), labels[chosen])
        print(f"{name}: {share:.2%} of {len(chosen)}")
    (FOLDER / "digits.tflite").write_bytes(write_model(parameters))
    np.savez_compressed(
        FOLDER / "held_back.npz", images=images[held_back], labels=labels[held_back]
    )


if __name__ == "__main__":
    main()
