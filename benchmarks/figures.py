"""Named figures: what sections hand to the targets, the tables and the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model_loader_cli.bench.interval import Interval


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its interval, and how far two arms that run the same code differ in its unit."""

    value: Interval
    noise: Interval | None = None


Figures = Mapping[str, Figure]


def shown(value: Interval | None, digits: int = 3) -> str:
    """A median and its interval, or a dash."""
    if value is None:
        return "–"
    # To add zero makes minus zero, which a tiny negative value is rounded to, zero.
    numbers = (round(number, digits) + 0.0 for number in (value.median, value.low, value.high))
    middle, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{middle} [{low}, {high}]"
