"""A fresh process for each arm of each pair, in random order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 300.0
"""An arm that takes longer hangs."""
LAST_WORDS = 2000

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
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
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
    """Run each arm once in each pair, in an order of its own; returns what they printed."""
    result = []
    for number in range(pairs):
        shuffled = order.sample(sorted(arms), len(arms))
        pair = {}
        for name in shuffled:
            step(f"pair {number + 1} of {pairs}: {name}")
            pair[name] = run(arms[name], folder)
        result.append({name: pair[name] for name in arms})
    return result
