"""The search by coverage: it counts, it finds what is there to be found, and it keeps it."""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.coverage import run
from tests.fuzz.models import targets
from tests.fuzz.models.targets import TooSlow

EXAMPLE = "tests.fuzz.coverage.example_targets"

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="atheris is not installed: make fuzz installs it"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results, with the example's targets to search."""
    monkeypatch.setattr(run, "MODULES", (EXAMPLE,))
    monkeypatch.setattr(run, "INSTRUMENTED", "tests.fuzz.coverage.example_targets")
    return tmp_path


def search(folder: Path, target: str) -> tuple[int, dict[str, int]]:
    """Search one target; returns the exit status and the counts."""
    status = run.main(
        [
            *("--target", target, "--inputs", "200000", "--seconds", "60"),
            *("--keep", str(folder / "kept"), "--json", str(folder / "run.json")),
        ]
    )
    return status, json.loads((folder / "run.json").read_text())["tables"][0]["counts"]


@needs_atheris
@pytest.mark.slow
def test_a_fault_is_found_and_kept(folder: Path) -> None:
    status, counts = search(folder, "faulty")
    assert status == 1
    assert counts["faulty: a fault"] == 1
    (kept,) = (folder / "kept").glob("faulty-crash-*")
    assert kept.read_bytes()[:3] == b"TFL"


@needs_atheris
@pytest.mark.slow
def test_a_sound_target_is_good(folder: Path) -> None:
    status, counts = search(folder, "sound")
    assert status == 0
    assert set(counts) == {"sound: short", "sound: long"}


@pytest.mark.forks
@pytest.mark.parametrize("name", run.MODULES)
def test_every_target_has_examples_that_it_takes(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.EXAMPLES) == set(module.TARGETS)
    for target, examples in module.EXAMPLES.items():
        assert examples
        for example in examples[:3]:
            assert module.TARGETS[target](example)


def test_a_reader_that_takes_too_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SECONDS", -1.0)
    with pytest.raises(TooSlow, match="seconds for 4 bytes"):
        targets.inspection(b"\0\0\0\0")


def test_an_error_that_no_reader_declares_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, **options: object) -> None:
        raise RecursionError

    monkeypatch.setattr(targets, "verify", broken)
    with pytest.raises(RecursionError):
        targets.verifier(b"")
