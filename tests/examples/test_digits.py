"""The digit classifier of the demo: its accuracy, its files, and the code that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.digits import train
from examples.digits.export import LABELS_FILE, SIGNATURE, write_model
from examples.digits.network import Parameters, forward, initial_parameters, loss_and_gradients
from loader_service.runtime.inspection import inspect_model

FOLDER = Path(train.__file__).parent
MODEL = FOLDER / "digits.tflite"
HELD_BACK = FOLDER / "held_back.npz"


def _classify(model: bytes, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities of a batch, computed in process by the runtime that is installed."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs LiteRT")
    runner = interpreter.Interpreter(model_content=model, num_threads=1).get_signature_runner(
        SIGNATURE
    )
    probabilities: np.ndarray[Any, Any] = runner(image=image)["probabilities"]
    return probabilities


def test_it_names_97_of_100_digits_it_never_saw() -> None:
    held_back = np.load(HELD_BACK)
    assert held_back["images"].shape == (train.HELD_BACK, 8, 8)
    probabilities = _classify(MODEL.read_bytes(), train.as_input(held_back["images"]))
    assert probabilities.shape == (train.HELD_BACK, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    right = int((probabilities.argmax(axis=1) == held_back["labels"]).sum())
    assert right / train.HELD_BACK >= 0.97
    # The figure in the folder's README.
    assert right == 356


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in (MODEL, HELD_BACK)) < 200_000


def test_the_model_describes_itself() -> None:
    summary = inspect_model(MODEL.read_bytes())
    assert summary.metadata is not None
    assert summary.metadata.name == "Handwritten digits"
    assert "CC BY 4.0" in summary.metadata.license
    (labels,) = summary.associated_files
    assert (labels.name, labels.kind) == (LABELS_FILE, "TENSOR_AXIS_LABELS")
    assert labels.lines == tuple("0123456789")
    (signature,) = summary.signatures
    assert [port.tensor.shape_signature for port in signature.inputs] == [(-1, 8, 8, 1)]


def test_the_held_back_digits_are_those_that_training_leaves_out() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn (extra [train]) is not installed here")
    images, labels = train.load_digits()
    chosen, trained = train.split(len(images), np.random.default_rng(train.SEED))
    held_back = np.load(HELD_BACK)
    np.testing.assert_array_equal(held_back["images"], images[chosen])
    np.testing.assert_array_equal(held_back["labels"], labels[chosen])
    assert set(chosen.tolist()).isdisjoint(trained.tolist())
    assert len(chosen) + len(trained) == len(images)


def test_the_gradients_are_those_of_the_loss() -> None:
    random = np.random.default_rng(3)
    parameters: Parameters = {
        name: value.astype(np.float64) for name, value in initial_parameters(random).items()
    }
    images, labels = random.random((4, 8, 8, 1)), np.array([1, 0, 9, 4])
    _, gradients = loss_and_gradients(parameters, images, labels)
    for name, gradient in gradients.items():
        # One direction for each parameter, by central difference.
        direction = random.standard_normal(gradient.shape)
        losses = [
            loss_and_gradients(
                {**parameters, name: parameters[name] + step * direction}, images, labels
            )[0]
            for step in (1e-6, -1e-6)
        ]
        slope = (losses[0] - losses[1]) / 2e-6
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4), name


def test_the_exported_model_computes_what_the_network_does() -> None:
    parameters = initial_parameters(np.random.default_rng(5))
    images = np.random.default_rng(6).random((3, 8, 8, 1)).astype(np.float32)
    logits = forward(parameters, images).logits
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = _classify(write_model(parameters), images)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)


def test_writing_twice_gives_the_same_bytes() -> None:
    parameters = initial_parameters(np.random.default_rng(5))
    assert write_model(parameters) == write_model(parameters)
