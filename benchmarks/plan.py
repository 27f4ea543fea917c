"""What one run is given: how many pairs, how short, where, and whom to tell."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cases import OTHER_PAIRS, QUICK_SHARE
from benchmarks.models import REPOSITORY, Store
from model_loader_cli.bench.processes import Arm, ArmFailed, run_pairs
from model_loader_cli.bench.progress import Reporter


@dataclass(slots=True)
class Plan:
    """Passed to every section."""

    pairs: int
    quick: bool
    order: random.Random
    store: Store
    reporter: Reporter
    failed: dict[str, str] = field(default_factory=dict)
    """Parts of which an arm failed, and its last words."""

    @property
    def share(self) -> int:
        """So many times fewer calls are made in a block."""
        return QUICK_SHARE if self.quick else 1

    def run_or_note(
        self, part: str, arms: Mapping[str, Arm], judged: bool
    ) -> list[dict[str, Any]] | None:
        """As `run`; a part of which an arm fails is noted, and None: the others go on."""
        try:
            return self.run(part, arms, judged)
        except ArmFailed as error:
            self.failed[part] = str(error)
            return None

    def run(self, part: str, arms: Mapping[str, Arm], judged: bool) -> list[dict[str, Any]]:
        """Run the arms in fresh process pairs, in random order; all pairs if they are judged.

        Raises ArmFailed.
        """
        pairs = pairs_of(self.pairs, judged)
        return run_pairs(arms, pairs, self.order, self.reporter.part(part), REPOSITORY)


def pairs_of(pairs: int, judged: bool) -> int:
    """How many pairs a part takes of a run that has so many for what it judges."""
    return pairs if judged else min(pairs, OTHER_PAIRS)
