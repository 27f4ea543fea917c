"""The comparison of devices: what is measured, what is said of what is not, the picture."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, report
from benchmarks.models import SHARED, SHARED_ON_DEVICES, WRITTEN, Store
from benchmarks.pictures import draw
from benchmarks.plan import Plan
from benchmarks.programs.several import digest
from benchmarks.sections import devices
from model_loader_cli.bench.candidate import Candidate, Trial, trial_of
from model_loader_cli.bench.comparison import AGAIN, IN_PROCESS
from model_loader_cli.bench.numerical import Difference, shown_difference
from model_loader_cli.bench.progress import reporting
from tests.support.drawing import needs_matplotlib

FOUR = cases.FOUR_BYTES


def block(milliseconds: float) -> dict[str, Any]:
    """Two calls that took as long."""
    return {"ns": [int(milliseconds * 1e6)] * 2, "stolen": 0}


def samples() -> dict[str, Any]:
    """Of two models and two devices, one of which refuses a model."""
    trials = {
        "a": [Trial("reference", off_by=Difference(0, 3), share=1), Trial("x", refused="too big")],
        "b": [Trial("reference", share=1), Trial("x", off_by=Difference(0.5), share=0.25)],
    }
    blocks = {IN_PROCESS: (4, 4), IN_PROCESS + AGAIN: (4, 4), "reference": (8, 8), "x": (None, 1)}
    pair = {
        arm: {"blocks": {name: [block(ms)] for name, ms in zip("ab", times, strict=True) if ms}}
        for arm, times in blocks.items()
    }
    return {
        "models": ["a", "b"],
        "threads": 1,
        "openvino": None,
        "trials": {name: [trial.to_json() for trial in found] for name, found in trials.items()},
        "pairs": [pair],
    }


def test_every_model_and_device_is_there() -> None:
    assert set(cases.DEVICE_CALLS) <= {*WRITTEN, *SHARED, *SHARED_ON_DEVICES}
    labels = [candidate.label for candidate in cases.DEVICES]
    assert len(labels) == len(set(labels))


def test_the_table_has_a_row_for_each_device_that_ran() -> None:
    text = devices.tables(samples())
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    assert [line[1] for line in lines if line[0] == "| a"] == [
        "LiteRT in process",
        "A/A: the same again",
        "`reference`",
    ]
    (slow,) = [line for line in lines if line[:2] == ["| a", "`reference`"]]
    assert slow[2:6] == ["8.00 [8.00, 8.00]", "2.00 [2.00, 2.00] ×", "3 steps", "100%"]
    (quick,) = [line for line in lines if line[:2] == ["| b", "`x`"]]
    assert quick[3:6] == ["0.25 [0.25, 0.25] ×", "5.0e-01", "25%"]
    assert "Not measured: a on x: too big." in text


def test_a_trial_survives_json() -> None:
    for trial in (Trial("x", off_by=Difference(0.5, 2), share=1), Trial("y", refused="no")):
        assert trial_of(trial.to_json()) == trial
    assert shown_difference(None) == "–"
    assert shown_difference(Difference(1e-4, 1)) == "1.0e-04, 1 step"


def test_what_is_compared_is_every_output() -> None:
    assert digest({"a": b"12", "b": b"3"}) == digest([b"12", b"3"]) != digest([b"12", b"4"])
    assert digest([b"123"]) == digest(b"123")


@needs_matplotlib
def test_the_picture_has_both_models(tmp_path: Path) -> None:
    (path,) = draw({"devices": samples()}, tmp_path)
    text = path.read_text()
    assert path.name == "devices.svg"
    assert "off by 5.0e-01" in text
    assert "too big" not in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_pair_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "DEVICES", (Candidate("reference"), Candidate("reference", True)))
    monkeypatch.setattr(cases, "DEVICE_CALLS", {FOUR: 4})
    with reporting(0, shown=False) as reporter:
        found = devices.run(Plan(1, True, random.Random(1), Store(tmp_path), reporter))
    pair, *_ = found["pairs"]  # more where time was stolen throughout the first
    assert list(pair) == [IN_PROCESS, IN_PROCESS + AGAIN, "reference"]
    assert len({arm["answers"][FOUR] for arm in pair.values()}) == 1
    assert devices.trials_of(found, FOUR)["reference"].off_by == Difference()
    assert "no device at hand honours allow_fp16" in devices.tables(found)
    assert report.is_apart({"sections": {"devices": found}})
