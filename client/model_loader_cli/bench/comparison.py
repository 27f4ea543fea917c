"""One model of a user's: what a call costs by each arm, and what that adds to the yardstick."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import Array
from .arms import Order
from .blocks import Condition
from .interval import Interval
from .processes import Arm, Step, run_pairs
from .samples import added, alone, p99_ratio

ARM = f"{__package__}.arm"
AGAIN = " again"
IN_PROCESS, DIRECT, RELAYED, ECHO = "in process", "direct", "relayed", "echo"
BACK_TO_BACK = "back to back"


@dataclass(frozen=True, slots=True)
class Row:
    """One arm's figures, in milliseconds."""

    arm: str
    whole: Interval
    added: Interval | None
    """What it takes longer than the yardstick; None for the yardstick itself."""
    p99_to_echo: float | None
    """The 99th percentile as a multiple of the echo's; None for too few calls."""


def arms_of(names: Sequence[str], order: Order, conditions: Sequence[Condition]) -> dict[str, Arm]:
    """Give each named arm its process; a name that ends with `AGAIN` runs the same code again."""
    return {
        name: Arm(
            ARM,
            {
                "arm": name.removesuffix(AGAIN),
                "order": asdict(order),
                "conditions": [condition.to_json() for condition in conditions],
            },
        )
        for name in names
    }


def yardstick_of(trusted: bool) -> str:
    """What others are compared with: LiteRT in process, for a model that may run there."""
    return IN_PROCESS if trusted else DIRECT


@contextmanager
def order_for(
    model: Path, inputs: Sequence[Array], *, runtime: str, threads: int, reply_bytes: int = 0
) -> Iterator[Order]:
    """Lay the inputs down for the arms' processes, and say what these are to run."""
    with tempfile.TemporaryDirectory(prefix="model-loader-bench-") as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, *inputs)
        yield Order(
            model=str(model.absolute()),
            inputs=str(file),
            reply_bytes=reply_bytes,
            threads=threads,
            runtime=runtime,
        )


def compare(
    model: Path,
    inputs: Sequence[Array],
    reply_bytes: int,
    *,
    runtime: str,
    threads: int,
    trusted: bool,
    pairs: int,
    condition: Condition,
    seed: int,
    step: Step,
) -> list[dict[str, Any]]:
    """Measure one model by all arms; the one in process only for a model that is trusted."""
    yardstick = yardstick_of(trusted)
    names = dict.fromkeys([yardstick, yardstick + AGAIN, DIRECT, ECHO])
    with order_for(
        model, inputs, runtime=runtime, threads=threads, reply_bytes=reply_bytes
    ) as order:
        return run_pairs(arms_of(list(names), order, [condition]), pairs, random.Random(seed), step)


def rows(pairs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The figures of each arm; the first one is the yardstick. Raises NothingLeft."""
    yardstick, *others = pairs[0]
    result = [Row(yardstick, alone(pairs, yardstick, BACK_TO_BACK), None, _p99(pairs, yardstick))]
    for arm in others:
        # The echo runs no model: it is a floor for what is added, and nothing is added to it.
        more = None if arm == ECHO else added(pairs, arm, yardstick, BACK_TO_BACK)
        result.append(Row(arm, alone(pairs, arm, BACK_TO_BACK), more, _p99(pairs, arm)))
    return result


def _p99(pairs: Sequence[Mapping[str, Any]], arm: str) -> float | None:
    return None if arm == ECHO else p99_ratio(pairs, arm, ECHO, BACK_TO_BACK)
