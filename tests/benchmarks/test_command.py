"""`python -m benchmarks`: what it writes, what it refuses, and a short run of everything."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.models import Store
from benchmarks.plan import Plan
from benchmarks.targets import TARGETS
from model_loader_cli.bench.machine import describe
from model_loader_cli.bench.processes import Arm, ArmFailed
from model_loader_cli.bench.progress import reporting
from tests.shared_models import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
SECONDS = 900
"""A whole run that takes longer hangs."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sections", "walking"],
        ["--sections", "cold", "--document", str(DOCUMENT)],
        ["--pairs", "0"],
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2


def test_a_section_that_fails_is_named_and_costs_no_other(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(plan: object) -> None:
        raise ArmFailed("the arm fell off")

    monkeypatch.setattr(report.SECTIONS["cold"], "run", fail)
    monkeypatch.setattr(report.SECTIONS["memory"], "models", lambda quick: ())
    monkeypatch.setattr(report.SECTIONS["memory"], "counts", lambda quick: (1,))
    arguments = ["--quick", "--pairs", "1", "--sections", "cold,memory", "--output", str(output)]
    assert command.main(arguments) == 1
    written = json.loads((output / "samples.json").read_text())
    assert list(written["sections"]) == ["memory"]
    assert "not measured: Cold: the arm fell off" in capsys.readouterr().err


def test_an_arm_that_fails_costs_only_its_part(tmp_path: Path) -> None:
    with reporting(0, shown=False) as reporter:
        plan = Plan(1, True, random.Random(1), Store(tmp_path), reporter)
        assert plan.run_or_note("walking", {"arm": Arm("benchmarks.nowhere")}, True) is None
    assert "No module named benchmarks.nowhere" in plan.failed["walking"]


def test_a_document_is_left_alone_when_a_section_is_missing(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = describe()
    samples = tmp_path / "samples.json"
    results = {"machine": machine, "machine_after": machine, "sections": {}, "failed": {}}
    about = {
        "second_runtime": None,
        "pairs": 1,
        "quick": False,
        "date": "2026-01-01",
        "seconds": 1.0,
    }
    samples.write_text(json.dumps(results | about))
    written = tmp_path / "page.md"
    written.write_text("as it was")
    arguments = ["--samples", str(samples), "--output", str(output), "--document", str(written)]
    assert command.main(arguments) == 1
    assert written.read_text() == "as it was"
    assert "a section is missing" in capsys.readouterr().err


ONE_PAIR = """
import json, sys
from benchmarks.__main__ import measure
from benchmarks.report import SECTIONS
from model_loader_cli.bench import processes
processes.SPARE_PAIRS = 0
with open(sys.argv[1], "w") as file:
    json.dump(measure(list(SECTIONS), 1, False, 1), file)
"""
"""Measures no pair again where time was stolen: that would take several times as long."""


def without_steal(value: Any) -> Any:
    """Return samples as if no time had been stolen: how much is, no test can choose."""
    match value:
        case dict():
            return {
                name: 0 if name == "stolen" else without_steal(item) for name, item in value.items()
            }
        case list():
            return list(map(without_steal, value))
    return value


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_one_pair_of_everything_measures_every_target(output: Path, tmp_path: Path) -> None:
    measured = tmp_path / "measured.json"
    done = subprocess.run(
        [sys.executable, "-c", ONE_PAIR, str(measured)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = without_steal(json.loads(measured.read_text()))
    samples = results["sections"]
    measured.write_text(json.dumps(results))
    written = tmp_path / "benchmarks.md"
    shutil.copy(DOCUMENT, written)
    arguments = ["--samples", str(measured), "--output", str(output), "--document", str(written)]
    assert command.main(arguments) == 0
    known = report.figures_of(samples)
    absent = {target.figure for target in TARGETS if target.figure not in known[target.section]}
    if os.getuid() != 0:
        absent = {figure for figure in absent if "memory" not in figure}
    assert not absent
    assert "| not measured |" not in written.read_text() or os.getuid() != 0
