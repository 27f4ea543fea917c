"""Made-up samples, and a run of each section that is as small as one can be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.models import Store
from benchmarks.plan import Plan
from benchmarks.report import SECTIONS
from model_loader_cli.bench.machine import describe
from model_loader_cli.bench.progress import reporting


def block(*milliseconds: float, stolen: int = 0) -> dict[str, Any]:
    """A block of calls."""
    return {"ns": [int(value * 1e6) for value in milliseconds], "stolen": stolen}


def pair_of(**arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A pair with one condition, "calls"; underscores in an arm's name stand for spaces."""
    return {name.replace("_", " "): {"blocks": {"calls": blocks}} for name, blocks in arms.items()}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Run every section with one pair and a few calls; gives the raw samples."""
    with pytest.MonkeyPatch.context() as patch:
        four = next(case for case in cases.CALLS if case.model == cases.FOUR_BYTES)
        small = replace(four, calls=8, sparse_calls=4, busy_calls=4)
        patch.setattr(cases, "CALLS", (small,))
        copied = replace(cases.PAYLOAD_CASES[0], quick=True, calls=4, arms=cases.BASE)
        patch.setattr(cases, "PAYLOAD_CASES", (copied,))
        patch.setattr(cases, "COLD_MODELS", (cases.FOUR_BYTES,))
        patch.setattr(cases, "PIPELINED", cases.FOUR_BYTES)
        patch.setattr(cases, "CROWD", cases.FOUR_BYTES)
        patch.setattr(cases, "CROWDS", (1, 2))
        patch.setattr(cases, "NEIGHBOURS", (0, 1))
        patch.setattr(cases, "WORKERS", (1, 3))
        patch.setattr(cases, "BLOCK_SECONDS", 0.2)
        folder = tmp_path_factory.mktemp("models")
        with reporting(0, shown=False) as reporter:
            plan = Plan(1, True, random.Random(1), Store(folder), reporter)
            sections = {name: section.run(plan) for name, section in SECTIONS.items()}
        machine = describe()
        yield {
            "date": "2026-01-01",
            "pairs": 1,
            "quick": True,
            "machine": machine,
            "machine_after": machine,
            "second_runtime": {"tflite-runtime": "2.14.0", "numpy": "1.26.4"},
            "seconds": 60.0,
            "sections": sections,
            "failed": {},
        }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder for what a run writes."""
    return tmp_path / "results"
