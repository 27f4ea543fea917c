"""`model-loader models`: filling the operator's folder, checking it, and seeing what is served."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.repository.files import MODEL
from loader_service.writer import hostile, small
from tests.cli.conftest import SECONDS, run_command
from tests.repository.folders import put
from tests.support.raw_client import Service

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's folder."""
    return tmp_path / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's file."""
    path = tmp_path / "adder.tflite"
    path.write_bytes(small.add(3))
    return path


def test_what_is_added_is_served_listed_and_verified(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    warm_up = tmp_path / "inputs.npz"
    np.savez(warm_up, x=np.ones(1, np.float32))
    digest = hashlib.sha256(small.add(3)).hexdigest()
    folder.mkdir()
    with Service(repository=str(folder), repository_seconds=0.05) as service:
        here = ("--address", service.directory)
        done = run_command("models", "list", *here)
        assert (done.returncode, done.stdout.split()[-4:]) == (0, ["no", "models", "by", "name"])
        command = ("models", "add", "adder", model, "--repository", folder)
        done = run_command(*command, "--warm-up", warm_up)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"adder:1 added, SHA-256 {digest}\n"
        done = run_command(*command, "--json")
        assert json.loads(done.stdout)["version"] == 2
        assert "version 2 of adder already" in run_command(*command, "--version", 2).stderr
        run_command(*command, "--version", 30)
        deadline = time.monotonic() + SECONDS
        with ml.connect(service.directory) as connection:
            while len(found := connection.named_models()) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert found[0] == ml.NamedModel("adder", 1, digest, len(small.add(3)))
        done = run_command("models", "list", *here, "--json")
        assert [row["version"] for row in json.loads(done.stdout)["models"]] == [1, 2, 30]
        assert digest[:12] in run_command("models", "list", *here).stdout
    done = run_command("models", "verify", "--repository", folder)
    assert (done.returncode, done.stdout.count("serves")) == (0, 3)
    (folder / "adder" / "2" / MODEL).write_bytes(b"changed")
    put(folder, "aborts", 1, hostile.abort_at_load())
    put(folder, "adder", 31, small.add(3), warm_up={"x": np.ones(2, np.float32)})
    done = run_command("models", "verify", "--repository", folder, "--json")
    assert done.returncode == 1
    rows = {(row["name"], row["version"]): row for row in json.loads(done.stdout)["models"]}
    assert "crashed" in rows["aborts", 1]["reason"]
    assert rows["adder", 2]["reason"] == "its SHA-256 is not the one that its pin names"
    assert "'x'" in rows["adder", 31]["reason"]
    assert [rows["adder", version]["serves"] for version in (1, 30)] == [True, True]
    done = run_command("models", "verify", "adder:1", "--repository", folder, "--json")
    assert (done.returncode, len(json.loads(done.stdout)["models"])) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "../x", "MODEL"), 2, "'../x' is no name"),
        (("add", "x", "BAD"), 1, "the bytes are no TensorFlow Lite model"),
        (("add", "x", "MODEL", "--warm-up", "BAD"), 2, "the inputs to warm up with cannot be"),
        (("verify",), 2, "cannot be read: No such file"),
        (("verify", "x:0"), 2, "'x:0' is not NAME or NAME:VERSION"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], status: int, said: str, folder: Path, model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"This is a text, and no model.")
    files = {"MODEL": str(model), "BAD": str(bad)}
    words = [files.get(word, word) for word in arguments]
    done = run_command("models", *words, "--repository", folder)
    assert done.returncode == status
    assert said in done.stderr
    assert not folder.exists() or not list(folder.rglob("*"))
