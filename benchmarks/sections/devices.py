"""Section 6, which is not run unless it is asked for: devices beside LiteRT in process.

Each arm's process runs all models that its device takes, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks import cases
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.models import REPOSITORY, WRITTEN, shared_models
from benchmarks.plan import Plan, pairs_of
from model_loader_cli.bench import processes
from model_loader_cli.bench.arms import Order
from model_loader_cli.bench.blocks import Condition
from model_loader_cli.bench.candidate import Trial, trial_of
from model_loader_cli.bench.comparison import AGAIN, DIRECT, IN_PROCESS
from model_loader_cli.bench.devices import Timed, timed
from model_loader_cli.bench.interval import NothingLeft
from model_loader_cli.bench.numerical import shown_difference
from model_loader_cli.bench.processes import Arm

TITLE = "Devices"
SEVERAL, TRIALS = "benchmarks.programs.several", "benchmarks.programs.devices"
TEXTS = {IN_PROCESS: "LiteRT in process", IN_PROCESS + AGAIN: "A/A: the same again"}


def models() -> list[str]:
    """Those that are here."""
    return [name for name in cases.DEVICE_CALLS if name in WRITTEN or name in shared_models()]


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts, at most."""
    return (2 + len(cases.DEVICES)) * pairs_of(pairs, judged=False) + 1


def run(plan: Plan) -> dict[str, Any]:
    """Try every device on every model, and measure those that run it; returns the raw samples."""
    orders = {
        name: Order(
            model=str(plan.store.path(name)),
            inputs=str(plan.store.inputs(name)),
            reply_bytes=plan.store.sizes(name).reply,
            threads=cases.DEVICE_THREADS,
        )
        for name in models()
    }
    plan.reporter.part(f"{TITLE}: trial")("each model once on each device")
    given = {
        "candidates": [asdict(candidate) for candidate in cases.DEVICES],
        "orders": {name: asdict(order) for name, order in orders.items()},
    }
    trials = processes.run(Arm(TRIALS, given), REPOSITORY)
    pairs = plan.run(TITLE, dict(_arms(plan, orders, trials)), judged=False)
    return {
        "models": list(orders),
        "threads": cases.DEVICE_THREADS,
        "openvino": _openvino(),
        "trials": trials,
        "pairs": pairs,
    }


def _arms(
    plan: Plan, orders: Mapping[str, Order], trials: Mapping[str, Any]
) -> Iterator[tuple[str, Arm]]:
    """Each arm that has a model to run, with its models."""
    for name in (IN_PROCESS, IN_PROCESS + AGAIN):
        yield name, _arm(plan, IN_PROCESS, orders)
    for position, candidate in enumerate(cases.DEVICES):
        own = {
            name: replace(order, device=candidate.device, allow_fp16=candidate.allow_fp16)
            for name, order in orders.items()
            if not trials[name][position]["refused"]
        }
        if own:
            yield candidate.label, _arm(plan, DIRECT, own)


def _arm(plan: Plan, kind: str, orders: Mapping[str, Order]) -> Arm:
    conditions = {
        name: Condition(
            name=name,
            calls=max(2, cases.DEVICE_CALLS[name] // plan.share),
            blocks=max(2, cases.DEVICE_BLOCKS // plan.share),
        ).to_json()
        for name in orders
    }
    given = {"arm": kind, "orders": {name: asdict(order) for name, order in orders.items()}}
    return Arm(SEVERAL, given | {"conditions": conditions})


def _openvino() -> str | None:
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """No target is set for devices."""
    return {}


def rows(samples: Mapping[str, Any], model: str) -> list[Timed]:
    """The figures of the arms that run a model; none where no block was quiet."""
    try:
        return timed(samples["pairs"], model)
    except NothingLeft:
        return []


def trials_of(samples: Mapping[str, Any], model: str) -> dict[str, Trial]:
    """What each device made of a model, by the device's label."""
    found = map(trial_of, samples["trials"][model])
    return {trial.label: trial for trial in found}


def tables(samples: Mapping[str, Any]) -> str:
    """The table of the section, and what is missing."""
    threads = "one thread" if samples["threads"] == 1 else f"{samples['threads']} threads"
    lines = [f"Milliseconds a call, back to back, {threads} everywhere.\n\n"]
    heads = ["model", "device", "ms", "of in process", "off by", "operators", "compiled in"]
    body: list[Sequence[str]] = []
    missing: dict[str, list[str]] = {}
    for model in samples["models"]:
        trials = trials_of(samples, model)
        for row in rows(samples, model):
            times = "" if row.ratio is None else f"{shown(row.ratio, 2)} ×"
            cells = _trial_cells(trials.get(row.arm))
            name = TEXTS.get(row.arm, f"`{row.arm}`".replace(", reduced precision`", "`, reduced"))
            body.append([model, name, shown(row.whole, 2), times, *cells])
        for trial in trials.values():
            if trial.refused:
                missing.setdefault(f"{trial.label}: {trial.refused}", []).append(model)
    lines.append(table(heads, body))
    lines += [f"\nNot measured: {', '.join(names)} on {why}.\n" for why, names in missing.items()]
    return "".join(lines)


def _trial_cells(trial: Trial | None) -> list[str]:
    if trial is None:
        return ["", "", ""]
    took = f"{trial.compile_seconds * 1000:.0f} ms" if trial.compile_seconds else ""
    return [shown_difference(trial.off_by), f"{trial.share:.0%}", took]
