"""How far answers are off: by the largest one, in steps, or not to be said."""

from __future__ import annotations

import numpy as np
import pytest

from model_loader_cli.bench.numerical import Difference, NotComparable, difference


def test_floats_are_compared_with_the_largest_of_their_own_output() -> None:
    wanted = {"a": np.array([1.0, -4.0]), "b": np.array([100.0])}
    answers = {"a": np.array([1.0, -3.9]), "b": np.array([101.0])}
    assert difference(answers, wanted).relative == pytest.approx(0.025)
    assert difference(wanted, wanted) == Difference(0, 0)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64"])
def test_integers_are_counted_in_steps_without_overflow(kind: str) -> None:
    limits = np.iinfo(kind)
    low, high = np.array([limits.min], kind), np.array([limits.max], kind)
    steps = int(limits.max) - int(limits.min)
    assert difference({"": low}, {"": high}).steps == steps
    assert difference({"": high}, {"": low}).steps == steps


def test_infinities_must_stand_in_the_same_places() -> None:
    wanted = np.array([1, np.inf, np.nan])
    assert difference({"": wanted.copy()}, {"": wanted}) == Difference()
    for other in ([1, 2, np.nan], [np.nan, np.inf, np.nan], [1, -np.inf, np.nan]):
        with pytest.raises(NotComparable, match="infinite"):
            difference({"": np.array(other)}, {"": wanted})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"b": np.zeros(2)}, "outputs"),
        ({"a": np.zeros(3)}, "float64"),
        ({"a": np.zeros(2, np.float32)}, "float32"),
    ],
)
def test_other_outputs_are_not_compared(answers: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(NotComparable, match=words):
        difference(answers, {"a": np.zeros(2)})
    with pytest.raises(NotComparable, match="values differ"):
        difference({"": np.array([True])}, {"": np.array([False])})
