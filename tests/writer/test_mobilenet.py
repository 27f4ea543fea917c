"""The MobileNets have the size, the work and the boundary of the published networks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.inspection import inspect_model
from loader_service.writer.calibration import calibrate, sample_images
from loader_service.writer.mobilenet import SEED, mobilenet_v1, mobilenet_v2
from loader_service.writer.mobilenet_layers import (
    CLASSES,
    Layer,
    mobilenet_v1_layers,
    mobilenet_v2_layers,
)

from .running import Runtime, call

NETWORKS = {"v1": mobilenet_v1, "v2": mobilenet_v2}


@cache
def _model(name: str, quantized: bool) -> bytes:
    return NETWORKS[name](quantized=quantized)


def _probabilities(runtime: Runtime, name: str, quantized: bool) -> np.ndarray[Any, Any]:
    """Of three images, as float32."""
    interpreter = runtime.interpreter(_model(name, quantized))
    answers = []
    for image in sample_images(np.random.default_rng(1), 3):
        if quantized:
            stored = np.clip(np.rint(image * 127.5) - 1, -128, 127)
            (answer,) = call(interpreter, stored[np.newaxis])
            answers.append((answer[0].astype(np.float32) + 128) / 256)
        else:
            answers.append(call(interpreter, image[np.newaxis])[0][0])
    return np.array(answers)


@pytest.mark.parametrize(
    ("layers", "published"),
    [(mobilenet_v1_layers(), 4_253_864), (mobilenet_v2_layers(), 3_538_984)],
    ids=NETWORKS,
)
def test_the_weights_are_as_many_as_published(layers: tuple[Layer, ...], published: int) -> None:
    calibrated = calibrate(layers, SEED)
    weights = sum(part.weights.size for part in calibrated if part.weights is not None)
    biases = sum(part.bias.size for part in calibrated if part.bias is not None)
    # Keras counts batch normalization, four numbers a channel, where here is one folded bias.
    assert weights + 4 * (biases - CLASSES) + CLASSES == published


@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize(("name", "operators", "weights"), [("v1", 30, 4.2e6), ("v2", 65, 3.5e6)])
def test_size_and_boundary(name: str, operators: int, weights: float, quantized: bool) -> None:
    model = _model(name, quantized)
    width = 1 if quantized else 4
    assert 0.98 * weights < len(model) / width < 1.15 * weights
    summary = inspect_model(model)
    assert sum(operator.count for operator in summary.operators) == operators
    (image,), (answer,) = summary.subgraphs[0].inputs, summary.subgraphs[0].outputs
    assert (image.shape, answer.shape) == ((1, 224, 224, 3), (1, 1000))
    assert {image.type, answer.type} == ({"INT8"} if quantized else {"FLOAT32"})


@pytest.mark.parametrize("name", NETWORKS)
def test_different_images_get_different_answers(litert: Runtime, name: str) -> None:
    for quantized in (False, True):
        answers = _probabilities(litert, name, quantized)
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=0.2 if quantized else 1e-4)
        # Twenty times what a network without an opinion would say.
        assert answers.max(axis=1).min() > 20 / 1000
        assert len({answer.tobytes() for answer in answers}) == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_follows_float32(litert: Runtime, name: str) -> None:
    exact, rounded = (_probabilities(litert, name, quantized) for quantized in (False, True))
    correlation = np.corrcoef(exact.ravel(), rounded.ravel())[0, 1]
    assert correlation > 0.6, correlation


@pytest.mark.parametrize("name", NETWORKS)
def test_both_runtimes_agree_in_float32(runtime: Runtime, litert: Runtime, name: str) -> None:
    np.testing.assert_allclose(
        _probabilities(runtime, name, False), _probabilities(litert, name, False), atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights() -> None:
    layers = mobilenet_v1_layers()[:3]
    first, again, other = (calibrate.__wrapped__(layers, seed)[-1].weights for seed in (1, 1, 2))
    assert first is not None
    assert other is not None
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
