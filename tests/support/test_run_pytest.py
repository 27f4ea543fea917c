"""The runner fails a run that leaves a process or a file behind, and only such a one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loader_service.sandbox.cgroup_mounts import own_cgroups
from tests.shared_models import REPOSITORY

RUNNER = (
    "import sys; import tests.support.run_pytest as runner;"
    "runner.END_SECONDS = float(sys.argv[1]); sys.exit(runner.run(sys.argv[2:]))"
)
LEAVES_A_PROCESS = """
import subprocess, sys
def test_it():
    code = "import subprocess; subprocess.Popen(['sleep', '59'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""
LEAVES_A_FILE = """
import os, tempfile
def test_it():
    tempfile.mkdtemp(prefix="forgotten-")
    assert os.environ["XDG_RUNTIME_DIR"] != "/run"
"""
LEAVES_A_CGROUP = """
from loader_service.sandbox.cgroup_mounts import own_cgroups
def test_it():
    (own_cgroups().version_1["memory"] / NAME).mkdir()
"""
LEAVES_NOTHING = """
import tempfile
def test_it(tmp_path):
    (tmp_path / "kept by pytest").touch()
    with tempfile.TemporaryDirectory():
        pass
"""


def run(folder: Path, test: str, wait: float = 0.2) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(test)
    program = [sys.executable, "-c", RUNNER, str(wait)]
    return subprocess.run(
        [*program, "-p", "no:cacheprovider", str(folder / "test_it.py")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_clean_run_passes(tmp_path: Path) -> None:
    done = run(tmp_path, LEAVES_NOTHING, wait=30)
    assert "1 passed" in done.stdout
    assert done.returncode == 0
    assert "left behind" not in done.stderr


def test_a_run_that_leaves_a_process_fails(tmp_path: Path) -> None:
    done = run(tmp_path, LEAVES_A_PROCESS)
    assert "1 passed" in done.stdout
    assert done.returncode == 1
    assert "processes left behind by the tests" in done.stderr
    assert "sleep 59" in done.stderr


def test_a_run_that_leaves_a_file_fails(tmp_path: Path) -> None:
    done = run(tmp_path, LEAVES_A_FILE)
    assert "1 passed" in done.stdout
    assert done.returncode == 1
    assert "files left behind by the tests: tmp/forgotten-" in done.stderr


def test_a_run_that_leaves_a_cgroup_fails(tmp_path: Path) -> None:
    memory = own_cgroups().version_1.get("memory")
    if memory is None or not os.access(memory, os.W_OK):
        pytest.skip("this host lets this user make no version 1 memory cgroup")
    left = memory / f"model-loader-1-1{os.getpid()}"  # process 1 began at another time
    try:
        done = run(tmp_path, LEAVES_A_CGROUP.replace("NAME", repr(left.name)))
    finally:
        left.rmdir()
    assert "1 passed" in done.stdout
    assert done.returncode == 1
    assert "cgroups left behind by the tests: " in done.stderr
    assert str(left) in done.stderr


def test_a_failing_run_keeps_its_status(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_it():\n    assert False\n").returncode == 1
    assert run(tmp_path, "").returncode == 5
