"""Section 3: the memory of a worker beyond the model's own cost, and of many workers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import cases
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.plan import Plan, pairs_of
from model_loader_cli.bench.comparison import AGAIN, IN_PROCESS
from model_loader_cli.bench.interval import Interval, NothingLeft, interval
from model_loader_cli.bench.processes import Arm

TITLE = "Memory"
SERVICE = "service"
ARMS = (IN_PROCESS, IN_PROCESS + AGAIN, SERVICE)
MEGABYTE = 1e6
ROOT_ONLY = "– (only root may look)"
Pairs = Sequence[Mapping[str, Any]]


def models(quick: bool) -> tuple[str, ...]:
    """The models of a run."""
    return cases.COLD_MODELS[:2] if quick else cases.COLD_MODELS


def counts(quick: bool) -> tuple[int, ...]:
    """The numbers of workers of a run."""
    return cases.WORKERS[:2] if quick else cases.WORKERS


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts."""
    return (len(models(quick)) * len(ARMS) + 1) * pairs_of(pairs, judged=True)


def run(plan: Plan) -> dict[str, Any]:
    """Measure every model, and every number of workers; returns the raw samples."""
    result: dict[str, Any] = {"models": []}
    for name in models(plan.quick):
        given = {"model": str(plan.store.path(name)), "inputs": str(plan.store.inputs(name))}
        arms = {
            arm: Arm("benchmarks.programs.memory", {"arm": arm.removesuffix(AGAIN), **given})
            for arm in ARMS
        }
        pairs = plan.run_or_note(f"{TITLE}: {name}", arms, judged=True)
        if pairs is not None:
            result["models"].append({"name": name, "pairs": pairs})
    tiny = cases.FOUR_BYTES
    given = {"model": str(plan.store.path(tiny)), "inputs": str(plan.store.inputs(tiny))}
    order = {**given, "counts": list(counts(plan.quick))}
    arms = {SERVICE: Arm("benchmarks.programs.workers", order)}
    result["workers"] = plan.run(f"{TITLE}: many workers", arms, judged=True)
    return result


def private(pairs: Pairs, arm: str, base: str | None = None) -> Interval:
    """Megabytes of an arm, or more than those of another; raises NothingLeft without root."""
    groups = []
    for pair in pairs:
        values = [pair[name]["private_bytes"] for name in (arm, base) if name]
        if None not in values:
            groups.append([(values[0] - sum(values[1:])) / MEGABYTE])
    return interval(groups)


def of_workers(samples: Mapping[str, Any], count: int, field: str, unit: float) -> Interval:
    """One field of so many workers; raises NothingLeft where it could not be seen."""
    values = [pair[SERVICE]["counts"][str(count)][field] for pair in samples["workers"]]
    return interval([[value / unit] for value in values if value is not None])


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that targets are set for; those that could not be seen are left out."""
    result = {}
    for entry in samples["models"]:
        pairs = entry["pairs"]
        try:
            result[f"{entry['name']}: memory, added"] = Figure(
                private(pairs, SERVICE, IN_PROCESS), private(pairs, IN_PROCESS + AGAIN, IN_PROCESS)
            )
        except NothingLeft:
            continue
    most = max(cases.WORKERS)
    if str(most) in samples["workers"][0][SERVICE]["counts"]:
        for name, field, unit in (
            ("answers", "answers", 1.0),
            ("memory", "service_bytes", MEGABYTE),
        ):
            try:
                result[f"{most} workers: {name}"] = Figure(of_workers(samples, most, field, unit))
            except NothingLeft:
                continue
    return result


def tables(samples: Mapping[str, Any]) -> str:
    """All tables of the section."""
    rows = []
    for entry in samples["models"]:
        cells = []
        for arm, base in (
            (IN_PROCESS, None),
            (SERVICE, None),
            (SERVICE, IN_PROCESS),
            (IN_PROCESS + AGAIN, IN_PROCESS),
        ):
            try:
                cells.append(shown(private(entry["pairs"], arm, base), 2))
            except NothingLeft:
                cells.append(ROOT_ONLY)
        rows.append([entry["name"], *cells])
    many = []
    known = samples["workers"]
    for count in known[0][SERVICE]["counts"]:
        seen = [pair[SERVICE]["counts"][count] for pair in known]
        cells = [str(min(one["answers"] for one in seen))]
        for field in ("private_bytes", "service_bytes"):
            values = [one[field] for one in seen]
            cells.append(
                ROOT_ONLY if None in values else f"{statistics.median(values) / MEGABYTE:.1f}"
            )
        cells.append(f"{statistics.median(one['call_ns'] for one in seen) / 1e6:.3f}")
        many.append([count, *cells])
    return (
        "Private memory after one call, MB.\n\n"
        + table(["model", "in process", "worker", "added", "A/A"], rows)
        + "\nWorkers of one service, each with the model of 4 bytes; memory in MB. *All* is the "
        "service with its workers, what they share counted once.\n\n"
        + table(["workers", "answers", "private, each", "all", "a call, ms"], many)
    )
