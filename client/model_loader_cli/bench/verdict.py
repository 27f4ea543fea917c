"""Whether a target is met, as far as the samples can tell."""

from __future__ import annotations

from enum import StrEnum

from .interval import Interval

FEWEST_PAIRS = 10
"""Fewer process pairs decide nothing."""


class Verdict(StrEnum):
    """What a run says of a target."""

    MET = "met"
    UNDECIDED = "undecided"
    MISSED = "missed"


def judge(
    value: Interval,
    bound: float,
    *,
    at_least: bool = False,
    noise: Interval | None = None,
    margin: float | None = None,
) -> Verdict:
    """Judge a value that must be at most (or at least) `bound`.

    Met or missed when the whole interval is on one side of the bound. Undecided when it straddles
    it, when there are fewer than `FEWEST_PAIRS`, or when `noise`, two arms that run the same code,
    differs by an interval whose half-width is above half of `margin`: what the target allows, by
    default the bound itself.
    """
    if value.pairs < FEWEST_PAIRS:
        return Verdict.UNDECIDED
    allowed = abs(bound) if margin is None else margin
    if noise is not None and noise.half_width > allowed / 2:
        return Verdict.UNDECIDED
    low, high = (-value.high, -value.low) if at_least else (value.low, value.high)
    limit = -bound if at_least else bound
    if high <= limit:
        return Verdict.MET
    return Verdict.MISSED if low > limit else Verdict.UNDECIDED
