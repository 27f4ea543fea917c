"""A fresh process for each arm of each pair, in random order."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .samples import Pair, quiet

SECONDS = 300.0
"""An arm that takes longer hangs."""
LAST_WORDS = 2000
STARTED = "MODEL_LOADER_BENCH_STARTED_NS"
"""Tells a process when it was started, on the clock of `time.monotonic_ns`."""
SPARE_PAIRS = 3
"""Most pairs that are run again because time was stolen throughout a condition."""

Step = Callable[[str], None]
"""Told, before each process starts, what it is."""


class ArmFailed(RuntimeError):
    """An arm's process ended with an error; the message ends with what it wrote last."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one fresh process is asked to do: a module, run with one JSON object."""

    module: str
    order: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable


def run(arm: Arm, folder: Path | None = None, seconds: float = SECONDS) -> Any:
    """Run one arm to its end and return the JSON that it printed; raises ArmFailed.

    `folder` is where a module that is not installed is found.
    """
    command = [arm.python, *([] if folder else ["-P"]), "-m", arm.module, json.dumps(arm.order)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**os.environ, STARTED: str(time.monotonic_ns())},
        )
    except subprocess.TimeoutExpired:
        raise ArmFailed(f"{arm.module} did not end within {seconds:g} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace")[-LAST_WORDS:]
        raise ArmFailed(f"{arm.module} ended with status {done.returncode}:\n{words}")
    return json.loads(done.stdout)


def run_pairs(
    arms: Mapping[str, Arm],
    pairs: int,
    order: random.Random,
    step: Step,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Run each arm once in each pair, in an order of its own; returns what they printed.

    A pair of which a condition has no block without stolen time is kept, and another one is run.
    """
    result: list[dict[str, Any]] = []
    usable = 0
    while usable < pairs and len(result) < pairs + SPARE_PAIRS:
        shuffled = order.sample(sorted(arms), len(arms))
        pair = {}
        for name in shuffled:
            step(f"pair {usable + 1} of {pairs}: {name}")
            pair[name] = run(arms[name], folder)
        result.append({name: pair[name] for name in arms})
        usable += is_usable(pair)
    return result


def is_usable(pair: Pair) -> bool:
    """Whether each condition of the pair has a block during which no arm had time stolen."""
    conditions = {name for arm in pair.values() for name in arm["blocks"]}
    return all(quiet(pair, condition) for condition in conditions)
