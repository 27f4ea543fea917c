"""From raw blocks to differences that can be judged."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.statistics import Interval, paired


def difference(pairs: Iterable[dict[str, Any]], arm: str, base: str | None) -> Interval:
    """Return `arm` less `base` (or `arm` alone) in milliseconds; blocks with steal are dropped."""
    groups = []
    for pair in pairs:
        group = []
        for number, block in enumerate(pair[arm]):
            other = pair[base][number] if base else {"median_ns": 0, "stolen": 0}
            if not any(blocks[number]["stolen"] for blocks in pair.values()):
                group.append((block["median_ns"] - other["median_ns"]) / 1e6)
        groups.append(group)
    return paired(groups)


def load_difference(pairs: Iterable[dict[str, Any]]) -> Interval:
    """Return what a load through the service adds, in milliseconds; first loads are left out."""
    return paired(
        [
            [
                (
                    statistics.median(pair["service"]["load_ns"][1:])
                    - statistics.median(pair["in-process"]["load_ns"][1:])
                )
                / 1e6
            ]
            for pair in pairs
        ]
    )
