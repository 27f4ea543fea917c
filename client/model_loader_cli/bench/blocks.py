"""Blocks of timed calls, measured the same way in every arm's process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

from .machine import stolen_ticks

WARM_UP_CALLS = 20
WARM_UP_SECONDS = 1.0
"""A warm-up ends with whichever comes first; two calls are always made."""
SPIN_UP_SECONDS = 0.1
LOOK_EVERY = 1_000_000
"""Turns of the spinner between two looks at whether its parent still lives."""

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How calls follow each other, and what else the machine does meanwhile."""

    name: str
    calls: int
    """Calls in one block."""
    blocks: int
    every_ms: float = 0
    """A call begins so long after the one before; 0: at once."""
    busy: bool = False
    """Whether another process spins beside the calls."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def conditions_of(values: list[Mapping[str, Any]]) -> list[Condition]:
    """Read what `Condition.to_json` wrote."""
    return [Condition(**value) for value in values]


def warm_up(call: Call) -> None:
    """Call until caches, branch predictors and clocks have settled; then tidy up once."""
    ends = time.monotonic() + WARM_UP_SECONDS
    for number in range(WARM_UP_CALLS):
        call()
        if number and time.monotonic() > ends:
            break
    gc.collect()
    gc.freeze()


def measure(call: Call, condition: Condition) -> list[dict[str, Any]]:
    """Run the blocks of one condition: for each, `ns` (each call) and `stolen` (clock ticks)."""
    blocks = []
    with spinner(condition.busy):
        for _ in range(condition.blocks):
            stolen = stolen_ticks()
            times = _spaced(call, condition) if condition.every_ms else _in_a_row(call, condition)
            blocks.append({"ns": times, "stolen": stolen_ticks() - stolen})
    return blocks


def _in_a_row(call: Call, condition: Condition) -> list[int]:
    times = []
    for _ in range(condition.calls):
        began = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - began)
    return times


def _spaced(call: Call, condition: Condition) -> list[int]:
    times = []
    next_at = time.monotonic()
    for _ in range(condition.calls):
        next_at += condition.every_ms / 1000
        time.sleep(max(0.0, next_at - time.monotonic()))
        began = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - began)
    return times


@contextmanager
def spinner(wanted: bool) -> Iterator[int | None]:
    """Keep one more process busy for as long as the block lasts, if wanted; gives its id."""
    if not wanted:
        yield None
        return
    program = (
        f"import os\nparent = {os.getpid()}\nwhile os.getppid() == parent:\n"
        f"    for _ in range({LOOK_EVERY}): pass"
    )
    beside = subprocess.Popen([sys.executable, "-S", "-c", program])
    try:
        time.sleep(SPIN_UP_SECONDS)
        yield beside.pid
    finally:
        beside.kill()
        beside.wait()
