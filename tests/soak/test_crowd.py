"""A short run of the crowd, and that its comparison finds what it should."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.soak.crowd.compare import compare
from tests.soak.crowd.crowd import run
from tests.soak.crowd.record import Record

SERVED = {
    ("ready",): 1.0,
    ("draining",): 0.0,
    ("loads_total", "ready", "load"): 2.0,
    ("models_closed_total",): 1.0,
    ("models_lost_total", "killed"): 1.0,
    ("models", "0", "program-0"): 0.0,
    ("reported_calls_total", "0"): 5.0,
}


class Told:
    """What a daemon told of one program, with two models, of which one was killed."""

    def __init__(self) -> None:
        self.left_out = 0
        self.counted = Counter({key: int(n) for key, n in SERVED.items() if "total" in key[0]})
        del self.counted["reported_calls_total", "0"]
        kinds = ("session-opened", "session-closed", "model-closed", "model-lost")
        self.of_origin = {"program-0": Counter({"load-ready": 2} | dict.fromkeys(kinds, 1))}
        self.ends = {"a": ("model-lost", "killed"), "b": ("model-closed", "")}
        self.deaths = {7: ["killed"]}


def faults(
    folder: Path,
    *,
    told: Told | None = None,
    served: dict[tuple[str, ...], float] | None = None,
    status: int = 0,
    killed: tuple[str, ...] = ("a",),
    **life: int,
) -> list[str]:
    """Compare one program's life, which is right but for what the test says."""
    record = Record(folder / "record", make=True)
    right = {"loads": 2, "loads_begun": 2, "calls": 6, "calls_begun": 7, "losses": 1, "closes": 1}
    for name, count in (right | {"connected": 1, "ended": 1} | life).items():
        record.lives[0][name] = count
    events: Any = told or Told()
    return compare(
        record,
        {0: status},
        dict.fromkeys(killed, (0, 7)),
        events,
        SERVED if served is None else SERVED | served,
    )


def test_what_agrees_is_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == []
    assert faults(tmp_path, status=-signal.SIGKILL, loads=1, calls=3, ended=0) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"loads": 1, "loads_begun": 1},
        {"calls": 5},
        {"losses": 2},
        {"closes": 0},
        {"ended": 0},
        {"relayed": 1},
        {"killed": ()},
        {"killed": ("a", "c")},
        {"served": {("models_lost_total", "killed"): 2.0}},
        {"served": {("models_lost_total", "crashed"): 1.0}},
        {"served": {("models", "0", "program-0"): 1.0}},
        {"served": {("ready",): 0.0}},
        {"served": {("reported_calls_total", "0"): 8.0}},
        {"status": -signal.SIGKILL, "loads": 0, "loads_begun": 0},
    ],
    ids=str,
)
def test_what_does_not_agree_is_a_fault(tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert faults(tmp_path, **wrong)


@pytest.mark.parametrize("kind", ["session-closed", "model-closed", "load-ready", "computed"])
def test_what_was_told_otherwise_is_a_fault(tmp_path: Path, kind: str) -> None:
    told = Told()
    told.of_origin["program-0"][kind] += 1
    assert faults(tmp_path, told=told)


@pytest.mark.isolation
@pytest.mark.slow
def test_a_small_crowd_meets_no_fault() -> None:
    result = run(clients=8, seconds=12, kill_seconds=0.25, seed=3)
    assert result.faults == []
    assert result.killed_workers > 0
    assert result.killed_programs > 0
    assert result.health_asked > 0
    assert result.counts["calls"] > 0
