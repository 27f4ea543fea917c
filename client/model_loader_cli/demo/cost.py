"""A rough measurement of what the sandbox costs a call. `benchmarks/` measures carefully."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

from .digits import HELD_BACK, Digits

ROUNDS = 3
CALLS = 500
WARM_UP = 50
"""Calls at the start of each round that are not counted."""
SECONDS = 20.0
"""A yardstick process that takes longer hangs."""
MODULES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


class Computes(Protocol):
    """A loaded model."""

    def compute(self, inputs: Any) -> Any:
        """Run the model once."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over all calls of all rounds, in seconds; each round measured both, in turn."""

    sandboxed: float
    in_process: float
    calls: int

    @property
    def added(self) -> float:
        """What a call in the sandbox takes longer."""
        return self.sandboxed - self.in_process


def measure(model: Computes, digits: Digits, runtime: str) -> Cost | None:
    """Time single images in the sandbox and in fresh ordinary processes, round by round.

    None where the service's runtime is not installed here, so that there is no yardstick.
    """
    sandboxed: list[float] = []
    in_process: list[float] = []
    for _ in range(ROUNDS):
        sandboxed += _through_service(model, digits)
        plain = _in_process(digits, runtime)
        if plain is None:
            return None
        in_process += plain
    return Cost(median(sandboxed), median(in_process), ROUNDS * CALLS)


def _through_service(model: Computes, digits: Digits) -> list[float]:
    batch = digits.batch()
    seconds = []
    for call in range(WARM_UP + CALLS):
        image = batch[call % len(batch)][None]
        began = perf_counter()
        model.compute(image)
        seconds.append(perf_counter() - began)
    return seconds[WARM_UP:]


def _in_process(digits: Digits, runtime: str) -> list[float] | None:
    module = MODULES.get(runtime.partition(" ")[0])
    if module is None:
        return None
    command: list[str | Path] = [sys.executable, "-P", "-m", f"{__package__}.in_process"]
    command += [module, digits.model, digits.model.parent / HELD_BACK, str(WARM_UP + CALLS)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    seconds: list[float] = json.loads(done.stdout)["seconds"]
    return seconds[WARM_UP:]
