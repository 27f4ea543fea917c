"""From raw blocks to differences: steal is dropped from all arms, and arms are paired by block.

A pair maps each arm's name to what its process printed; `blocks` there maps each condition's name
to its blocks (see `blocks.measure`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .interval import Interval, interval

Pair = Mapping[str, Mapping[str, Any]]
Values = list[list[float]]
"""For each pair, a value for each block that is left."""

MILLISECOND_NS = 1e6
P99_CALLS = 5000
"""Calls below which a 99th percentile says nothing."""


def quiet(pair: Pair, condition: str) -> list[int]:
    """The numbers of the blocks during which no arm of the pair had time stolen."""
    measured = [arm["blocks"][condition] for arm in pair.values() if condition in arm["blocks"]]
    shortest = min(map(len, measured), default=0)
    return [
        number
        for number in range(shortest)
        if not any(blocks[number]["stolen"] for blocks in measured)
    ]


def medians(pairs: Iterable[Pair], arm: str, condition: str, key: str = "ns") -> Values:
    """The median of each quiet block in milliseconds, by pair."""
    return [
        [
            statistics.median(pair[arm]["blocks"][condition][number][key]) / MILLISECOND_NS
            for number in quiet(pair, condition)
        ]
        for pair in pairs
    ]


def combined(function: Callable[..., float], *values: Values) -> Interval:
    """Apply a function to the values of the same block of several arms, and judge the results."""
    return interval(
        [
            [function(*block) for block in zip(*groups, strict=True)]
            for groups in zip(*values, strict=True)
        ]
    )


def alone(pairs: Iterable[Pair], arm: str, condition: str, key: str = "ns") -> Interval:
    """An arm's own milliseconds."""
    return interval(medians(list(pairs), arm, condition, key))


def added(pairs: Iterable[Pair], arm: str, base: str, condition: str) -> Interval:
    """The milliseconds that `arm` takes longer than `base`."""
    known = list(pairs)
    return combined(
        lambda ours, theirs: ours - theirs,
        medians(known, arm, condition),
        medians(known, base, condition),
    )


def pooled(pairs: Iterable[Pair], arm: str, condition: str) -> list[int]:
    """Every call of the quiet blocks, in nanoseconds."""
    return [
        time
        for pair in pairs
        for number in quiet(pair, condition)
        for time in pair[arm]["blocks"][condition][number]["ns"]
    ]


def p99_ratio(pairs: Iterable[Pair], arm: str, base: str, condition: str) -> float | None:
    """The 99th percentile of all calls, as a multiple of the base's; None for too few calls."""
    known = list(pairs)
    ours, theirs = (pooled(known, name, condition) for name in (arm, base))
    if min(len(ours), len(theirs)) < P99_CALLS:
        return None
    return statistics.quantiles(ours, n=100)[98] / statistics.quantiles(theirs, n=100)[98]


def dropped(pairs: Iterable[Pair]) -> tuple[int, int]:
    """Blocks that were dropped for steal, and all blocks; a block counts once for all arms."""
    gone = everything = 0
    for pair in pairs:
        conditions = {name for arm in pair.values() for name in arm["blocks"]}
        for condition in conditions:
            count = min(
                len(arm["blocks"][condition]) for arm in pair.values() if condition in arm["blocks"]
            )
            everything += count
            gone += count - len(quiet(pair, condition))
    return gone, everything
