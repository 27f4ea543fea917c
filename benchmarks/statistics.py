"""Paired differences with an interval: what two noisy arms may be said to differ by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 20240601


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its bootstrap 95 % interval."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def verdict(self, target: float, noise: Interval) -> str:
        """Say whether the value is at most `target`.

        ``met`` when the whole interval is below it, ``undecided`` when the A/A arm moves by more
        than half of it or the interval straddles it, else ``missed``.
        """
        if noise.half_width > target / 2:
            return "undecided"
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "undecided"


def paired(differences: Sequence[Sequence[float]]) -> Interval:
    """Judge block differences grouped by process pair; whole pairs are resampled."""
    groups = [np.asarray(group) for group in differences if len(group)]
    if not groups:
        raise ValueError("no block is left: all had stolen time")
    random = np.random.default_rng(SEED)
    medians = np.array([np.median(group) for group in groups])
    samples = random.choice(medians, (RESAMPLES, len(medians)))
    resampled = np.median(samples, axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(np.median(medians)), float(low), float(high), len(groups))
