"""`model-loader ps`: what a running service holds, and never a service of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import small
from model_loader_cli.steering.rows import process_name
from tests.cli.conftest import Command, document, run_command

SYSTEM_SERVICE = Path("/run/model-loader")


def test_a_model_is_listed_with_what_it_uses(command: Command, daemon: Path) -> None:
    with (
        ml.connect(daemon, origin="a test") as connection,
        ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add()) as model,
    ):
        for _ in range(3):
            model.compute(np.ones(1, np.float32))
        value = document(command("ps", "--json"))
        assert value["service"] == str(daemon)
        (row,) = value["models"]
        assert row.keys() == {
            "user",
            "model_id",
            "origin",
            "model",
            "sha256",
            "worker_pid",
            "shared",
            "layers",
            "missing_layers",
            "memory_held_by",
            "memory_bytes",
            "cpu_seconds",
            "calls",
            "age_seconds",
            "runtime",
            "devices",
            "limits",
        }
        assert (row["user"], row["origin"]) == (os.geteuid(), "a test")
        assert row["sha256"] == model.report.sha256
        assert row["worker_pid"] == model.isolation.worker_pid
        assert row["layers"] == list(model.isolation.layers)
        assert row["memory_bytes"] > 0
        assert 0 <= row["calls"] <= 3
        assert row["age_seconds"] > 0
        assert row["limits"]["memory_bytes"] == connection.limits.memory_bytes
        text = command("ps").stdout
        assert text.split()[:5] == ["user", "id", "pid", "model", "origin"]
        assert str(row["worker_pid"]) in text
        assert "a test" in text
        assert row["sha256"][:12] in text


def test_a_file_gives_its_name(command: Command, daemon: Path, tmp_path: Path) -> None:
    path = tmp_path / "adder [bold].tflite"
    path.write_bytes(small.add())
    with (
        ml.connect(daemon) as connection,
        ml.MLModelLoader(ml.create_context(connection=connection)).load(path),
    ):
        assert "adder [bold].tflite" in command("ps").stdout


def test_a_service_without_models_says_so(command: Command, daemon: Path) -> None:
    done = command("ps")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"no models are loaded in the service at {daemon}\n"
    assert document(command("ps", "--json")) == {"service": str(daemon), "models": []}


@pytest.mark.skipif(SYSTEM_SERVICE.exists(), reason="a system service may be running here")
def test_without_a_service_it_says_so_and_starts_none(tmp_path: Path) -> None:
    program = tmp_path / "sitecustomize.py"
    program.write_text(
        "import subprocess\n"
        "def refuse(*arguments, **options): raise SystemExit('a process was started')\n"
        "subprocess.Popen.__init__ = refuse\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    own = {"XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": path}
    done = run_command("ps", env=own)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no Model Loader service is running" in done.stderr
    assert "start one with: model-loaderd" in done.stderr
    assert run_command("doctor", env=own).returncode != 0  # which does start processes
    done = run_command("ps", "--json", env=own)
    assert done.returncode == 3
    assert document(done) == {"service": None, "models": []}


def test_a_named_service_that_is_not_there(tmp_path: Path) -> None:
    done = run_command("ps", "--address", tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"(looked in {tmp_path})" in done.stderr
    assert f"start one with: model-loaderd --directory {tmp_path}" in done.stderr


def test_a_parked_model_has_no_process_to_show() -> None:
    assert (process_name({"worker_pid": 12}), process_name({"worker_pid": 0})) == ("12", "parked")
