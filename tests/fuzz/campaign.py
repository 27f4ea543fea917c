"""What every fuzzer is: a function that takes a seed and a count, and gives a table of outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

FINDINGS_KEPT = 50
"""A fault that every input shows would fill the report."""


@dataclass(slots=True)
class Table:
    """What one fuzzer saw."""

    name: str
    """What was fuzzed, as the report's heading has it."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each outcome came; each input has exactly one."""
    facts: dict[str, int] = field(default_factory=dict)
    """What was counted beside the outcomes, such as workers that were needed."""
    findings: list[str] = field(default_factory=list)
    """What may not be, each with what it takes to see it again; empty is good."""
    found: int = 0
    """All findings, those beyond ``FINDINGS_KEPT`` too."""
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """How many inputs were given."""
        return self.counts.total()

    def count(self, outcome: str) -> None:
        """Count an input by its outcome."""
        self.counts[outcome] += 1

    def find(self, what: str) -> None:
        """Note what may not be."""
        self.found += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(what)


class Fuzzer(Protocol):
    """One kind of hostile input; the same seed and count give the same inputs."""

    def __call__(self, seed: int, count: int, seconds: float | None = None) -> Table:
        """Give `count` inputs, or as many as `seconds` allow."""


def numbered(count: int, seconds: float | None) -> Iterator[int]:
    """Count inputs from 0 until there are enough of them or the time has passed."""
    ends = None if seconds is None else monotonic() + seconds
    for number in range(count):
        if ends is not None and monotonic() > ends:
            return
        yield number
