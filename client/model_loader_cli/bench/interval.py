"""A median and its bootstrap 95 % interval: what two noisy arms may be said to differ by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 20240601
"""The same samples always give the same interval."""
PERCENTILES = (2.5, 97.5)


class NothingLeft(ValueError):
    """No block is left: time was stolen during each."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A median over process pairs, with the interval that resampling whole pairs gives."""

    median: float
    low: float
    high: float
    pairs: int
    """Pairs that had a block left."""

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def interval(groups: Sequence[Sequence[float]]) -> Interval:
    """Take the median of each pair's values, then of the pairs; whole pairs are resampled.

    Blocks of one process are alike for reasons of that process alone (where its memory lies, which
    core it is on), so only pairs are independent. Raises NothingLeft if no pair has a value.
    """
    medians = np.array([np.median(group) for group in groups if len(group)])
    if not len(medians):
        raise NothingLeft("no block is left: time was stolen during each")
    random = np.random.default_rng(SEED)
    resampled = np.median(random.choice(medians, (RESAMPLES, len(medians))), axis=1)
    low, high = np.percentile(resampled, PERCENTILES)
    return Interval(float(np.median(medians)), float(low), float(high), len(medians))
