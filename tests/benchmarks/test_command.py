"""`python -m benchmarks`: what it writes, what it refuses, and a short run of everything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.targets import TARGETS
from model_loader_cli.bench.processes import ArmFailed
from tests.shared_models import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
SECONDS = 900
"""A whole run that takes longer hangs."""


@pytest.mark.parametrize(
    "arguments",
    [["--sections", "walking"], ["--sections", "cold", "--document", str(DOCUMENT)]],
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
    assert "section cold was not measured: the arm fell off" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_one_pair_of_everything_measures_every_target(output: Path, tmp_path: Path) -> None:
    written = tmp_path / "benchmarks.md"
    shutil.copy(DOCUMENT, written)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--pairs", "1"),
            *("--output", str(output), "--document", str(written)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    samples = json.loads((output / "samples.json").read_text())["sections"]
    known = report.figures_of(samples)
    absent = {target.figure for target in TARGETS if target.figure not in known[target.section]}
    if os.getuid() != 0:
        absent = {figure for figure in absent if "memory" not in figure}
    assert not absent
    assert "not measured" not in written.read_text() or os.getuid() != 0
