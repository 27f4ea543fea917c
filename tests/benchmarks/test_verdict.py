"""Met, undecided, missed."""

from __future__ import annotations

import pytest

from model_loader_cli.bench.interval import Interval
from model_loader_cli.bench.verdict import FEWEST_PAIRS, Verdict, judge


def of(low: float, high: float, pairs: int = FEWEST_PAIRS) -> Interval:
    return Interval((low + high) / 2, low, high, pairs)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (of(0.01, 0.09), Verdict.MET),
        (of(0.01, 0.10), Verdict.MET),
        (of(0.09, 0.11), Verdict.UNDECIDED),
        (of(0.11, 0.12), Verdict.MISSED),
        (of(-0.2, -0.1), Verdict.MET),
        (of(0.01, 0.09, pairs=FEWEST_PAIRS - 1), Verdict.UNDECIDED),
        (of(0.11, 0.12, pairs=FEWEST_PAIRS - 1), Verdict.UNDECIDED),
    ],
)
def test_at_most(value: Interval, verdict: Verdict) -> None:
    assert judge(value, 0.10) is verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (of(81, 85), Verdict.MET),
        (of(80, 85), Verdict.MET),
        (of(79, 85), Verdict.UNDECIDED),
        (of(70, 79.9), Verdict.MISSED),
    ],
)
def test_at_least(value: Interval, verdict: Verdict) -> None:
    assert judge(value, 80, at_least=True, margin=20) is verdict


@pytest.mark.parametrize("value", [of(0.01, 0.02), of(5, 6)])
def test_a_noisy_machine_decides_nothing(value: Interval) -> None:
    quiet, noisy = of(-0.05, 0.05), of(-0.06, 0.06)
    assert judge(value, 0.10, noise=quiet) is not Verdict.UNDECIDED
    assert judge(value, 0.10, noise=noisy) is Verdict.UNDECIDED


def test_noise_is_held_against_what_the_target_allows() -> None:
    """98 % allow a loss of 2, of which noise may be a half."""
    value, noise = of(99, 100), of(-1.5, 1.5)
    assert judge(value, 98, at_least=True, noise=noise) is Verdict.MET
    assert judge(value, 98, at_least=True, noise=noise, margin=2) is Verdict.UNDECIDED
