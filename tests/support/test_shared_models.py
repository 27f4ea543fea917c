"""The manifest's records, and what happens where the shared models are absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.shared_models import REPOSITORY, SharedModel, each_model, manifest, require_model

USES_THEM = """
from tests.shared_models import each_model, require_model
@each_model(category="real")
def test_each(shared_model):
    assert shared_model is None
def test_one():
    require_model("edge_add")
"""


def test_absent_models_are_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(USES_THEM)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "MODEL_LOADER_SHARED": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "2 skipped" in done.stdout
    assert "the shared models are not there" in done.stdout


def test_a_record_points_at_files_that_exist() -> None:
    model = require_model("edge_add")
    assert (model.kind, model.category, model.runs, model.error) == ("tflite", "edge", True, None)
    assert len(model.read()) == model.values["size"]
    runs = [run for each in manifest() for run in each.expected]
    assert runs
    assert all(run.path.is_file() for run in runs)
    assert {run.kind for run in runs} == {"random", "real", "signature", "resize"}


@each_model(runs=False)
def test_what_does_not_run_says_why(shared_model: SharedModel) -> None:
    assert shared_model.error or shared_model.kills_process
