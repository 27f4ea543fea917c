"""What is built and installed is what is in the tree, and `packaging/` is no package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging import readme
from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS
from tests.support.readable_copy import copy_project

PACKAGES = {"model_loader", "model_loader_wire", "model_loader_cli", "loader_service"}
SCRIPTS = {"model-loader", "model-loaderd"}
PLACES = "import loader_service; print(ml.__file__, loader_service.__file__)"
"""Says at the end of a program where it has found the packages."""
RUNTIMES = ["ai_edge_litert", "tflite_runtime", "tensorflow", "flatbuffers"]


def run(command: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def source_files(project: Path) -> set[str]:
    """Return the files that the wheel must hold: all of the packages, as paths in the wheel."""
    found = set()
    for root in (project / "client", project):
        for package in PACKAGES:
            for path in (root / package).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    found.add(str(path.relative_to(root)))
    return found


@dataclass(frozen=True)
class Built:
    """The wheel and the source distribution, and the tree that they were built from."""

    project: Path
    wheel: Path
    source: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the source distribution, and the wheel from it, in a copy of the tree."""
    folder = tmp_path_factory.mktemp("built")
    project, made = folder / "project", folder / "dist"
    copy_project(REPOSITORY, project)
    run([sys.executable, "-m", "build", "--outdir", str(made), str(project)])
    (wheel,) = made.glob("*.whl")
    (source,) = made.glob("*.tar.gz")
    return Built(project, wheel, source)


def test_the_packaging_folder_hides_no_library() -> None:
    code = "import packaging, json; print(json.dumps([packaging.__file__, *packaging.__path__]))"
    paths = json.loads(run([sys.executable, "-c", code], cwd=REPOSITORY))
    assert not [path for path in paths if Path(path).is_relative_to(REPOSITORY / "packaging")]


def test_the_packaging_folder_is_no_package() -> None:
    modules = (REPOSITORY / "packaging").rglob("__init__.py*")
    assert not list(modules)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_holds_the_packages_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        scripts = {
            line.split("=")[0].strip()
            for line in archive.read(entry_points).decode().splitlines()
            if "=" in line
        }
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == source_files(built.project)
    assert {name.split("/")[0] for name in names - metadata} == PACKAGES
    assert {name for name in names if name.endswith("py.typed")} >= {
        "model_loader/py.typed",
        "model_loader_wire/py.typed",
    }
    assert any(name.endswith("/LICENSE") for name in metadata)
    assert scripts == SCRIPTS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_source_distribution_holds_what_a_build_needs(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {
            name.partition("/")[2]
            for name in archive.getnames()
            if not archive.getmember(name).isdir()
        }
    assert names >= {"pyproject.toml", "LICENSE", "README.md", "proto/CHANNEL.md"}
    assert {name for name in names if name.startswith("proto/") and name.endswith(".proto")} == {
        str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "proto").rglob("*.proto")
    }
    assert not [name for name in names if name.startswith(("tests/", ".venv", "examples/"))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_bare_client_installs_and_loads_no_runtime(built: Built, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, str(built.wheel)])
    code = (
        "import sys, json, importlib.util as u, model_loader;"
        f"print(json.dumps([[n for n in {RUNTIMES} if u.find_spec(n)],"
        f"[n for n in {[*RUNTIMES, 'loader_service']} if n in sys.modules],"
        "model_loader.__file__]))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    installed, loaded, place = json.loads(run([python, "-c", code], cwd=tmp_path, env=clean))
    assert installed == []
    assert loaded == []
    assert Path(place).is_relative_to(tmp_path / "venv")
    for script in SCRIPTS:
        assert os.access(tmp_path / "venv" / "bin" / script, os.X_OK)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_the_readmes_example_runs_on_what_was_installed(
    kind: str, built: Built, tmp_path: Path
) -> None:
    """A daemon and a program of a clean environment, in which nothing is of this tree."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    scripts = tmp_path / "venv" / "bin"
    file = built.wheel if kind == "wheel" else built.source
    pip = [str(scripts / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", f"{file}[service]"])
    shutil.copytree(readme.EXAMPLES, tmp_path / "examples")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # The path of a socket is short.
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "s"
        daemon = subprocess.Popen(
            [str(scripts / "model-loaderd"), f"--directory={directory}", "--log-level=error"],
            cwd=tmp_path,
            env=clean,
        )
        try:
            deadline = time.monotonic() + HANG_SECONDS
            while not (directory / "attach.sock").exists():
                assert daemon.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            command = [str(scripts / "python"), "-I", "-c", f"{readme.PROGRAM}\n{PLACES}"]
            address = {"MODEL_LOADER_ADDRESS": str(directory)}
            answer, _, places = run(command, tmp_path, clean | address).partition("\n")
            daemon.terminate()
            assert daemon.wait(HANG_SECONDS) == 0
        finally:
            daemon.kill()
            daemon.wait()
    assert readme.ANSWER.fullmatch(answer + "\n"), answer
    for place in places.split():
        assert Path(place).is_relative_to(tmp_path / "venv")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_generated_code_is_what_proto_says(tmp_path: Path) -> None:
    run(["make", ".venv-proto/installed"], cwd=REPOSITORY)
    run([".venv-proto/bin/python", "proto/generate.py", str(tmp_path / "v1")], cwd=REPOSITORY)
    kept = REPOSITORY / "client" / "model_loader_wire" / "v1"
    made = {path.name: path.read_bytes() for path in (tmp_path / "v1").iterdir()}
    assert made == {path.name: path.read_bytes() for path in kept.glob("*.py*")}
