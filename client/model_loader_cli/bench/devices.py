"""Devices beside each other on one model: what a call takes, as a multiple of the yardstick's."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import Array
from .arms import Order
from .blocks import Condition
from .candidate import Candidate
from .comparison import AGAIN, ARM, DIRECT, IN_PROCESS, arms_of
from .interval import Interval
from .processes import Arm, Step, run_pairs
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


def yardstick_of(trusted: bool) -> str:
    """What devices are compared with: LiteRT in process, for a model that may run there."""
    return IN_PROCESS if trusted else DIRECT


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
    with tempfile.TemporaryDirectory(prefix="model-loader-bench-") as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, *inputs)
        order = Order(
            model=str(model.absolute()),
            inputs=str(file),
            reply_bytes=0,
            threads=threads,
            runtime=runtime,
        )
        arms = arms_of([yardstick, yardstick + AGAIN], order, [condition])
        for candidate in chosen:
            own = replace(order, device=candidate.device, allow_fp16=candidate.allow_fp16)
            given = {"arm": DIRECT, "order": asdict(own), "conditions": [condition.to_json()]}
            arms[candidate.label] = Arm(ARM, given)
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
