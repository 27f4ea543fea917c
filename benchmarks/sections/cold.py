"""Section 2: from nothing to the first answer, and from `load()` to ready."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import cases
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.plan import Plan
from model_loader_cli.bench.comparison import AGAIN, IN_PROCESS
from model_loader_cli.bench.interval import Interval, NothingLeft, interval
from model_loader_cli.bench.processes import Arm
from model_loader_cli.bench.samples import MILLISECOND_NS, added, alone

TITLE = "Cold"
PROGRAM = "benchmarks.programs.cold"
SERVICE = "service"
ARMS = (IN_PROCESS, IN_PROCESS + AGAIN, SERVICE)
PHASES = {
    "Python": "Python starts",
    "import": "import",
    "start": "service starts, or `connect()`",
    "load": "load",
    "input": "input is made",
    "answer": "first answer",
}
"""The steps of the first answer, in their order; in process there is no service to start."""
PROMISED = ("import", "start", "load", "answer")
"""The steps that the target for the first answer counts: not Python's own start."""
PARTS = {
    "load": "load to ready",
    "again": "load of the same bytes once more",
    "answer": "first answer after that",
    "hash": "SHA-256 of the bytes, alone",
    "verify": "the verifier, alone",
    "connect": "`connect()` to a running service",
}
Pairs = Sequence[Mapping[str, Any]]


def models(quick: bool) -> tuple[str, ...]:
    """The models of a run."""
    return cases.COLD_MODELS[:2] if quick else cases.COLD_MODELS


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts."""
    return len(models(quick)) * len(ARMS) * pairs


def run(plan: Plan) -> dict[str, Any]:
    """Measure every model; returns the raw samples."""
    result: dict[str, Any] = {"models": []}
    for name in models(plan.quick):
        arms = {
            arm: Arm(
                PROGRAM,
                {
                    "arm": arm.removesuffix(AGAIN),
                    "model": str(plan.store.path(name)),
                    "inputs": str(plan.store.inputs(name)),
                    "loads": max(2, cases.COLD_LOADS // plan.share),
                    "connects": max(2, cases.COLD_CONNECTS // plan.share),
                },
            )
            for arm in ARMS
        }
        pairs = plan.run_or_note(f"{TITLE}: {name}", arms, judged=True)
        if pairs is not None:
            result["models"].append({"name": name, "pairs": pairs})
    return result


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that targets are set for; those without a quiet block are left out."""
    result = {}
    for entry in samples["models"]:
        name, pairs = entry["name"], entry["pairs"]
        try:
            result[f"{name}: load, added"] = Figure(
                added(pairs, SERVICE, IN_PROCESS, "load"),
                added(pairs, IN_PROCESS + AGAIN, IN_PROCESS, "load"),
            )
        except NothingLeft:
            continue
        if name == cases.FOUR_BYTES:
            result["first answer"] = Figure(first_answer(pairs))
    return result


def first_answer(pairs: Pairs) -> Interval:
    """Import, start, load and first answer together, in milliseconds."""
    return interval(
        [
            [sum(pair[SERVICE]["phases"][phase] for phase in PROMISED) / MILLISECOND_NS]
            for pair in pairs
        ]
    )


def phases(pairs: Pairs, arm: str) -> dict[str, float]:
    """The median milliseconds of each step of the first answer."""
    return {
        name: statistics.median(pair[arm]["phases"][name] for pair in pairs) / MILLISECOND_NS
        for name in PHASES
        if name in pairs[0][arm]["phases"]
    }


def warm_phases(pairs: Pairs) -> dict[str, float]:
    """The steps that are left for a warm Python and a service that runs, median milliseconds."""
    result = {}
    for name, part in (("start", "connect"), ("load", "load"), ("answer", "answer")):
        try:
            result[name] = alone(pairs, SERVICE, part).median
        except NothingLeft:
            return {}
    return result


def tables(samples: Mapping[str, Any]) -> str:
    """All tables of the section."""
    lines = [
        "A fresh Python until it has its first answer, milliseconds (medians).\n\n",
        table(
            ["model", "arm", *PHASES.values(), "all"],
            (
                [
                    entry["name"],
                    arm,
                    *(f"{known[name]:.1f}" if name in known else "–" for name in PHASES),
                    f"{sum(known.values()):.0f}",
                ]
                for entry in samples["models"]
                for arm in (IN_PROCESS, SERVICE)
                for known in [phases(entry["pairs"], arm)]
            ),
        ),
        "\nIn a warm Python, with a warm runtime or a running service; the model's bytes are in "
        "memory, and new to the service unless the table says otherwise. Milliseconds.\n\n",
        table(["model", "what", "in process", "service", "added", "A/A"], _warm_rows(samples)),
    ]
    return "".join(lines)


def _warm_rows(samples: Mapping[str, Any]) -> Iterator[list[str]]:
    for entry in samples["models"]:
        pairs = entry["pairs"]
        for part, text in PARTS.items():
            cells = []
            for arm in (IN_PROCESS, SERVICE):
                here = part in pairs[0][arm]["blocks"]
                cells.append(_or_dash(partial(alone, pairs, arm, part)) if here else "–")
            if "–" in cells:
                cells += ["–", "–"]
            else:
                cells.append(_or_dash(partial(added, pairs, SERVICE, IN_PROCESS, part)))
                cells.append(_or_dash(partial(added, pairs, IN_PROCESS + AGAIN, IN_PROCESS, part)))
            yield [entry["name"], text, *cells]


def _or_dash(make: Callable[[], Interval]) -> str:
    try:
        return shown(make(), 2)
    except NothingLeft:
        return "–"
