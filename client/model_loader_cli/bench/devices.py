"""Devices beside each other on one model: what a call takes, as a multiple of the yardstick's."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..tensors import Array
from .blocks import Condition
from .candidate import Candidate
from .comparison import AGAIN, DIRECT, arms_of, order_for, yardstick_of
from .interval import Interval
from .processes import Step, run_pairs
from .samples import alone, combined, medians


@dataclass(frozen=True, slots=True)
class Timed:
    """One arm's figures."""

    arm: str
    """The yardstick, the yardstick again, or a candidate's label."""
    whole: Interval
    """Milliseconds a call."""
    ratio: Interval | None
    """Of the yardstick's; None for the yardstick itself."""


def compare_devices(
    model: Path,
    inputs: Sequence[Array],
    chosen: Iterable[Candidate],
    *,
    runtime: str,
    threads: int,
    trusted: bool,
    pairs: int,
    condition: Condition,
    seed: int,
    step: Step,
) -> list[dict[str, Any]]:
    """Measure one model on each device; returns the pairs. Raises ArmFailed."""
    yardstick = yardstick_of(trusted)
    with order_for(model, inputs, runtime=runtime, threads=threads) as order:
        arms = arms_of([yardstick, yardstick + AGAIN], order, [condition])
        for candidate in chosen:
            own = replace(order, device=candidate.device, allow_fp16=candidate.allow_fp16)
            arms[candidate.label] = arms_of([DIRECT], own, [condition])[DIRECT]
        return run_pairs(arms, pairs, random.Random(seed), step)


def timed(pairs: Sequence[Mapping[str, Any]], condition: str) -> list[Timed]:
    """The figures of each arm that has the condition; the first arm is the yardstick.

    Raises NothingLeft.
    """
    yardstick, *others = [arm for arm in pairs[0] if condition in pairs[0][arm]["blocks"]]
    base = medians(pairs, yardstick, condition)
    result = [Timed(yardstick, alone(pairs, yardstick, condition), None)]
    for arm in others:
        ratio = combined(lambda ours, theirs: ours / theirs, medians(pairs, arm, condition), base)
        result.append(Timed(arm, alone(pairs, arm, condition), ratio))
    return result
