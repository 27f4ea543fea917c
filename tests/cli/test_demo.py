"""`model-loader demo`: what it promises is checked by itself, and here again."""

from __future__ import annotations

import io
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.text import Text

import model_loader as ml
from model_loader_cli.demo import cost
from model_loader_cli.demo.attacks import Fate, attacks
from model_loader_cli.demo.digits import INK, find_digits
from model_loader_cli.demo.pictures import pictures, shade
from tests.cli.conftest import run_command

DEMO_SECONDS = 60
"""A hang bound: the demo takes about four seconds."""


@pytest.mark.isolation
def test_everything_is_as_promised() -> None:
    began = time.monotonic()
    done = run_command("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < DEMO_SECONDS
    text = done.stdout
    assert text.endswith("All as promised.\n")
    found = re.search(r"(\d+) of 360 digits .*: ([\d.]+)% right", text)
    assert found is not None
    assert int(found[1]) >= 0.97 * 360
    assert "seccomp" in text
    assert "in an ordinary process" in text
    for attack in attacks():
        assert f"one that {attack.title}: stopped after " in text
        assert f"{attack.error.__name__}: " in text
    assert text.count("none wrongly") == len(attacks())
    assert text.count("it is a ") >= 8
    assert "█" in text


@pytest.mark.slow
def test_it_speaks_ascii_where_it_must() -> None:
    done = run_command("demo", env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "##" in done.stdout


def test_without_the_example_it_says_where_to_get_it(tmp_path: Path) -> None:
    done = run_command("demo", "--digits", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "digits.tflite, which is not in" in done.stderr
    assert "make demo" in done.stderr


def test_the_digits_are_what_the_model_takes() -> None:
    digits = find_digits(None)
    batch = digits.batch()
    assert batch.shape == (len(digits.labels), 8, 8, 1)
    assert (batch.min(), batch.max(), batch.dtype) == (0, 1, np.dtype("float32"))


def promised(index: int) -> Fate:
    """The fate that an attack must have."""
    attack = attacks()[index]
    return Fate(attack.error("stopped", limit=attack.limit), 1.0, answers=10)


@pytest.mark.parametrize("index", range(3))
def test_an_attack_counts_as_stopped_only_by_its_own_error(index: int) -> None:
    attack = attacks()[index]
    assert promised(index).as_promised(attack)
    others: list[dict[str, Any]] = [
        {"error": None},
        {"error": ml.UnknownError("something else")},
        {"error": ml.ModelLoaderError("something else")},
        {"answers": 0},
        {"wrong": 1},
        {"neighbour": ml.OperationError("it died, too")},
    ]
    for change in others:
        assert not replace(promised(index), **change).as_promised(attack)


def test_the_hog_must_be_stopped_by_the_memory_limit() -> None:
    (hog,) = [attack for attack in attacks() if attack.limit]
    assert hog.limit == "memory_bytes"
    error = ml.QuotaExceededError("too many", limit="models_per_origin")
    assert not Fate(error, 1.0, answers=1).as_promised(hog)


def test_a_pixel_is_the_darker_the_more_ink_it_has() -> None:
    assert [shade(value, INK, " .:+#") for value in (0, 4, 8, 12, 16)] == [
        "  ",
        "..",
        "::",
        "++",
        "##",
    ]


def test_pictures_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    images = np.full((3, 2, 2), INK, np.uint8)
    captions = [Text(name) for name in ("one", "two", "three")]
    lines = [line.plain.rstrip() for line in pictures(images, captions, INK, 14)]
    assert lines == ["####   ####", "####   ####", "one    two", "", "####", "####", "three", ""]


def test_without_the_runtime_there_is_no_yardstick() -> None:
    class Instant:
        def compute(self, inputs: Any) -> Any:
            return inputs

    assert cost.measure(Instant(), find_digits(None), "another 1.0") is None
