"""From blocks to differences: steal is dropped from all arms, and a p99 needs many calls."""

from __future__ import annotations

import pytest

from model_loader_cli.bench.interval import NothingLeft
from model_loader_cli.bench.processes import is_usable
from model_loader_cli.bench.samples import (
    P99_CALLS,
    added,
    alone,
    dropped,
    medians,
    p99_ratio,
    pooled,
    quiet,
)
from tests.benchmarks.conftest import block, pair_of


def test_blocks_are_paired_by_their_number() -> None:
    pair = pair_of(base=[block(1, 1, 9), block(2)], ours=[block(3, 3, 3), block(2.5)])
    assert added([pair], "ours", "base", "calls").median == pytest.approx(1.25)
    assert alone([pair], "ours", "calls").median == pytest.approx(2.75)


def test_a_block_with_steal_is_dropped_from_all_arms() -> None:
    pair = pair_of(
        base=[block(1), block(1, stolen=1), block(1)],
        ours=[block(2), block(2), block(50, stolen=2)],
        echo=[block(1), block(1), block(1)],
    )
    assert quiet(pair, "calls") == [0]
    assert medians([pair], "base", "calls") == [[1.0]]
    assert medians([pair], "echo", "calls") == [[1.0]]
    assert added([pair], "ours", "base", "calls").median == 1.0
    assert pooled([pair], "ours", "calls") == [2_000_000]
    assert dropped([pair]) == (2, 3)


def test_a_pair_that_lost_everything_is_run_again_and_says_nothing() -> None:
    lost = pair_of(base=[block(1, stolen=1)], ours=[block(9)])
    whole = pair_of(base=[block(1)], ours=[block(2)])
    assert not is_usable(lost)
    assert is_usable(whole)
    assert added([lost, whole], "ours", "base", "calls").pairs == 1
    with pytest.raises(NothingLeft):
        added([lost], "ours", "base", "calls")


def test_conditions_that_an_arm_does_not_have_do_not_count_against_it() -> None:
    pair = pair_of(base=[block(1)], ours=[block(2)])
    pair["base"]["blocks"]["sparse"] = [block(5, stolen=1)]
    assert quiet(pair, "calls") == [0]
    assert quiet(pair, "sparse") == []


def test_a_99th_percentile_needs_thousands_of_calls() -> None:
    def pairs(calls: int) -> list[dict[str, object]]:
        slow = calls // 50
        ours = block(*[1.0] * (calls - slow), *[6.0] * slow)
        return [pair_of(ours=[ours], echo=[block(*[2.0] * calls)])]

    assert p99_ratio(pairs(P99_CALLS - 1), "ours", "echo", "calls") is None  # type: ignore[arg-type]
    ratio = p99_ratio(pairs(P99_CALLS), "ours", "echo", "calls")  # type: ignore[arg-type]
    assert ratio == pytest.approx(3.0)
