"""The bootstrap: its median, its width, and that whole pairs are resampled."""

from __future__ import annotations

import numpy as np
import pytest

from model_loader_cli.bench.interval import NothingLeft, interval


def test_the_median_of_pairs_is_between_its_bounds() -> None:
    found = interval([[1.0, 3.0, 2.0], [4.0], [6.0, 6.0]])
    assert (found.median, found.pairs) == (4.0, 3)
    assert (found.low, found.high) == (2.0, 6.0)
    assert found.half_width == 2.0


def test_many_blocks_of_one_process_do_not_make_it_sure() -> None:
    """Blocks are alike for reasons of their process: only pairs are independent."""
    random = np.random.default_rng(7)
    offsets = random.normal(0, 1, 10)
    few = interval([[offset] for offset in offsets])
    many = interval([[offset] * 500 for offset in offsets])
    assert (many.low, many.high) == (few.low, few.high)
    assert many.half_width > 0.3


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = interval([[value] for value in random.normal(5, 1, 12)])
        held += found.low <= 5 <= found.high
    assert 175 <= held <= 200


def test_the_same_samples_always_give_the_same_interval() -> None:
    groups = [[float(number)] for number in range(12)]
    assert interval(groups) == interval(groups)


def test_pairs_without_a_block_are_not_counted() -> None:
    assert interval([[], [2.0], []]).pairs == 1


def test_no_block_at_all_is_said() -> None:
    with pytest.raises(NothingLeft, match="time was stolen"):
        interval([[], []])
