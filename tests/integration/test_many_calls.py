"""``compute_many`` through the whole service, on both roads."""

from __future__ import annotations

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small


@pytest.mark.parametrize("elements", [1, 150_528, 1_000_000])
def test_answers_come_in_order(road_loader: ml.MLModelLoader, elements: int) -> None:
    """Smaller and larger than what a channel holds."""
    model = road_loader.load(small.double(TensorType.FLOAT32, (elements,)))
    inputs = [np.full(elements, number, np.float32) for number in range(12)]
    answers = [(answer[0], answer[-1]) for answer in model.compute_many(inputs)]
    assert answers == [(2 * number, 2 * number) for number in range(12)]


def test_shapes_may_change_in_a_sequence(road_loader: ml.MLModelLoader) -> None:
    model = road_loader.load(small.dynamic_batch(2))
    rows = [1, 1, 1, 5, 40_000, 40_000, 40_000, 2, 1]
    inputs = [np.full((count, 2), count, np.float32) for count in rows]
    for given, answer in zip(inputs, model.compute_many(inputs), strict=True):
        np.testing.assert_array_equal(answer, 2 * given)
