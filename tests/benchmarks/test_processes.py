"""Fresh processes in random order, and what becomes of one that fails."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest

from model_loader_cli.bench.processes import (
    SPARE_PAIRS,
    STARTED,
    Arm,
    ArmFailed,
    run,
    run_pairs,
)

PROGRAM = """
import json, os, sys
given = json.loads(sys.argv[1])
if given.get("fails"):
    sys.exit("out of " + given["fails"])
block = {"ns": [1], "stolen": given.get("stolen", 0)}
print(json.dumps({"blocks": {"calls": [block]}, "pid": os.getpid(),
                  "started": os.environ["STARTED"], "python": sys.executable}))
""".replace("STARTED", STARTED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program `arm` that says who it is."""
    (tmp_path / "arm.py").write_text(PROGRAM)
    return tmp_path


def test_each_arm_of_each_pair_has_a_process_of_its_own(folder: Path) -> None:
    arms = {name: Arm("arm") for name in ("one", "two")}
    pairs = run_pairs(arms, 3, random.Random(1), lambda _: None, folder)
    pids = {arm["pid"] for pair in pairs for arm in pair.values()}
    assert len(pids) == 6
    assert os.getpid() not in pids
    assert [list(pair) for pair in pairs] == [["one", "two"]] * 3


def test_the_order_is_random_and_the_seeds(folder: Path) -> None:
    arms = {name: Arm("arm") for name in ("one", "two", "three")}

    def steps(seed: int) -> list[str]:
        told: list[str] = []
        run_pairs(arms, 4, random.Random(seed), told.append, folder)
        return told

    first = steps(1)
    assert first == steps(1)
    orders = {tuple(text.rpartition(" ")[2] for text in first[n : n + 3]) for n in (0, 3, 6, 9)}
    assert len(orders) > 1


def test_pairs_with_stolen_time_are_replaced_a_few_times(folder: Path) -> None:
    arms = {"quiet": Arm("arm"), "stolen": Arm("arm", {"stolen": 4})}
    pairs = run_pairs(arms, 2, random.Random(1), lambda _: None, folder)
    assert len(pairs) == 2 + SPARE_PAIRS


def test_a_process_knows_when_it_was_started(folder: Path) -> None:
    before = time.monotonic_ns()
    started = int(run(Arm("arm"), folder)["started"])
    assert before <= started <= time.monotonic_ns()


def test_an_arm_may_have_a_python_of_its_own(folder: Path) -> None:
    assert run(Arm("arm", python=sys.executable), folder)["python"] == sys.executable
    with pytest.raises(FileNotFoundError):
        run(Arm("arm", python="/nowhere/python"), folder)


def test_a_failure_is_told_with_its_last_words(folder: Path) -> None:
    with pytest.raises(ArmFailed, match=r"(?s)arm ended with status 1:.*out of cheese"):
        run(Arm("arm", {"fails": "cheese"}), folder)
