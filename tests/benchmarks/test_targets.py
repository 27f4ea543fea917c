"""The targets as data: well formed, judged as said, and all of them measured by some section."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.figures import Figure
from benchmarks.report import SECTIONS
from benchmarks.targets import TARGETS, Target
from model_loader_cli.bench.interval import Interval
from model_loader_cli.bench.verdict import FEWEST_PAIRS, Verdict


def of(value: float, pairs: int = FEWEST_PAIRS) -> Figure:
    return Figure(Interval(value, value, value, pairs), Interval(0, 0, 0, pairs))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.figure)
def test_a_target_is_well_formed(target: Target) -> None:
    assert target.section in SECTIONS
    assert target.bound > 0
    assert bool(target.of) == bool(target.or_share)
    assert target.unit in ("ms", "%", "MB", "")
    # Of what must be reached, noise is held against what may be missing, not against all of it.
    if target.at_least and target.unit == "%":
        assert target.margin == pytest.approx(100 - target.bound)


def test_no_target_is_there_twice() -> None:
    for field in ("text", "figure"):
        values = [getattr(target, field) for target in TARGETS]
        assert len(values) == len(set(values))


def test_a_bound_may_be_a_part_of_another_figure() -> None:
    (target,) = [one for one in TARGETS if one.figure == "MobileNet v2, 1 threads: added"]
    assert target.limit({target.of: of(4.0)}) == pytest.approx(0.10)
    assert target.limit({target.of: of(8.0)}) == pytest.approx(0.16)
    figures = {target.of: of(8.0), target.figure: of(0.15)}
    assert target.verdict(figures) is Verdict.MET
    assert target.verdict({**figures, target.of: of(5.0)}) is Verdict.MISSED


def test_what_was_not_measured_is_undecided() -> None:
    assert TARGETS[0].verdict({}) is Verdict.UNDECIDED
    half = replace(TARGETS[0], of="absent", or_share=0.5)
    assert half.verdict({half.figure: of(0.0)}) is Verdict.UNDECIDED
