"""Counts what became of the mutants, keeps those that matter, and says what may not be."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.fuzz.campaign import Table
from tests.fuzz.models.asking import Outcome
from tests.fuzz.models.mutants import Mutant

MUST_BE_ZERO = (
    "broker deaths",
    "wrong answers of the healthy model",
    "hangs",
    "leaks",
    "faults of the service",
)

EXPECTED_DEATHS = frozenset(("timeout", "out-of-memory", "cpu-time"))
"""Deaths by a limit; a mutant that died otherwise is kept."""

_SAID = {
    "refused": "clean error: {}",
    "death": "worker died: {}",
    "fault": "fault of the service: {}",
    "answer": "{}",
}


class Tally:
    """The outcomes of one run. Thread-safe."""

    def __init__(self, name: str, keep: Path | None) -> None:
        self.table = Table(name)
        self.table.facts.update(dict.fromkeys(MUST_BE_ZERO, 0))
        self._keep = keep
        self._lock = threading.Lock()
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)

    @property
    def good(self) -> bool:
        """Whether nothing happened that may not."""
        return not self.table.found

    def count(self, mutant: Mutant, outcome: Outcome) -> None:
        """Count a mutant's end; one that killed its worker by a fault, or showed one, is kept."""
        with self._lock:
            self.table.count(_SAID[outcome.kind].format(outcome.cause))
            if outcome.kind == "death" and outcome.cause not in EXPECTED_DEATHS:
                self.keep(mutant, outcome)
        if outcome.kind == "fault":
            self.find("faults of the service", f"mutant {mutant.number}: {outcome.detail}")
            self.keep(mutant, outcome)

    def inspected(self, mutant: Mutant, outcome: Outcome) -> None:
        """Count an inspection beside the outcomes."""
        name = f"inspections: {_SAID[outcome.kind].format(outcome.cause)}"
        with self._lock:
            self.table.facts[name] = self.table.facts.get(name, 0) + 1
        if outcome.kind == "fault":
            self.find("faults of the service", f"inspecting {mutant.number}: {outcome.detail}")
            self.keep(mutant, outcome)

    def hang(self, mutant: Mutant) -> None:
        """Count a mutant whose load or computation does not end, and keep it."""
        self.find("hangs", f"mutant {mutant.number} of {mutant.original}")
        self.keep(mutant, Outcome("fault", "hang"))

    def find(self, what: str, detail: str, count: int = 1) -> None:
        """Count what must be zero."""
        with self._lock:
            self.table.facts[what] += count
            self.table.find(f"{what}: {detail}")

    def fact(self, name: str, value: int) -> None:
        """Note a number beside the outcomes."""
        self.table.facts[name] = value

    def keep(self, mutant: Mutant, outcome: Outcome) -> None:
        """Write the mutant, and how it was made, to the folder of a run that has one."""
        if self._keep is None:
            return
        name = f"{mutant.number}-{mutant.original}-{outcome.cause}.tflite".replace(" ", "-")
        (self._keep / name).write_bytes(mutant.data)
        with (self._keep / "index.jsonl").open("a") as index:
            values = {
                "file": name,
                "kind": mutant.kind,
                "changes": mutant.changes,
                "outcome": outcome.cause,
                "detail": outcome.detail,
            }
            index.write(json.dumps(values, ensure_ascii=False) + "\n")
