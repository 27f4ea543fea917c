"""The runner fails a run that leaves a process or a file behind, and only such a one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loader_service.sandbox.cgroup import start_time
from tests.shared_models import REPOSITORY

RUNNER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.support import cgroup_trees, run_pytest
# A folder in the place of the cgroups: on the host, others make and sweep trees meanwhile.
found = SimpleNamespace(version_1={"memory": Path(sys.argv[1])}, version_2=None)
cgroup_trees.own_cgroups = lambda: found
run_pytest.END_SECONDS = 0.2
sys.exit(run_pytest.run(sys.argv[2:]))
"""
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
from pathlib import Path
def test_it():
    (Path(__file__).parent / "cgroups" / "model-loader-1-1").mkdir()
"""
LEAVES_NOTHING = """
import tempfile
def test_it(tmp_path):
    (tmp_path / "kept by pytest").touch()
    with tempfile.TemporaryDirectory():
        pass
"""


def run(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(test)
    cgroups = folder / "cgroups"
    cgroups.mkdir(exist_ok=True)
    return subprocess.run(
        [
            *(sys.executable, "-c", RUNNER, str(cgroups)),
            *("-p", "no:cacheprovider", str(folder / "test_it.py")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_clean_run_passes(tmp_path: Path) -> None:
    done = run(tmp_path, LEAVES_NOTHING)
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
    living = tmp_path / "cgroups" / f"model-loader-{os.getpid()}-{start_time(os.getpid())}"
    before = tmp_path / "cgroups" / "model-loader-1-2"
    for tree in (living, before):
        tree.mkdir(parents=True)
    done = run(tmp_path, LEAVES_A_CGROUP)
    assert "1 passed" in done.stdout
    assert done.returncode == 1
    left = tmp_path / "cgroups" / "model-loader-1-1"
    assert f"cgroups left behind by the tests: {left}\n" in done.stderr


def test_a_failing_run_keeps_its_status(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_it():\n    assert False\n").returncode == 1
    assert run(tmp_path, "").returncode == 5
