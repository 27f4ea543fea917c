"""Section 1: one call, by every way to run a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks import cases
from benchmarks.cases import SECOND_DIRECT, SECOND_IN_PROCESS, SIZED_ECHO, TAKEN_APART, Case
from benchmarks.models import SHARED, shared_models
from benchmarks.plan import Plan, pairs_of
from benchmarks.second_runtime import SECOND_PYTHON
from benchmarks.sections.one_call_figures import figures
from benchmarks.sections.one_call_tables import tables
from model_loader_cli.bench.arms import Order
from model_loader_cli.bench.comparison import AGAIN, ARM, DIRECT, ECHO, IN_PROCESS
from model_loader_cli.bench.processes import Arm

__all__ = ["TITLE", "figures", "run", "runs", "tables"]

TITLE = "One call"
LARGE_BUFFERS = 4 << 20


def chosen(quick: bool) -> Iterator[tuple[str, Case]]:
    """The cases of a run, with the table that each is for; absent models are left out."""
    for kind, known in (("models", cases.CALLS), ("payloads", cases.PAYLOAD_CASES)):
        for case in known:
            if case.model in SHARED and case.model not in shared_models():
                continue
            if quick and not case.quick:
                continue
            yield kind, cases.shortened(case) if quick else case


def arms_of(case: Case, plan: Plan) -> dict[str, Arm]:
    """Give each arm of a case its process; the second runtime's only where it is installed."""
    result = {}
    for name in case.arms:
        python, kind, module, runtime, buffers = None, name.removesuffix(AGAIN), ARM, "litert", 0
        if name in (SECOND_IN_PROCESS, SECOND_DIRECT):
            if not SECOND_PYTHON.exists():
                continue
            python, runtime = str(SECOND_PYTHON), "tflite-runtime"
            kind = IN_PROCESS if name == SECOND_IN_PROCESS else DIRECT
        elif name == TAKEN_APART:
            module = "benchmarks.programs.taken_apart"
        elif name == SIZED_ECHO:
            kind, buffers = ECHO, LARGE_BUFFERS
        order = Order(
            model=str(plan.store.path(case.model)),
            inputs=str(plan.store.inputs(case.model)),
            reply_bytes=plan.store.sizes(case.model).reply,
            threads=case.threads,
            runtime=runtime,
            buffer_bytes=buffers,
        )
        conditions = [condition.to_json() for condition in case.conditions(name, plan.share)]
        given = {"arm": kind, "order": asdict(order), "conditions": conditions}
        result[name] = Arm(module, given, python) if python else Arm(module, given)
    return result


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts, at most."""
    return sum(len(case.arms) * pairs_of(pairs, case.judged) for _, case in chosen(quick))


def run(plan: Plan) -> dict[str, Any]:
    """Measure every case; returns the raw samples."""
    result: dict[str, Any] = {"models": [], "payloads": []}
    for _, case in chosen(plan.quick):
        plan.store.sizes(case.model)  # a model that cannot be had is noticed before the first call
    for kind, case in chosen(plan.quick):
        pairs = plan.run_or_note(f"{TITLE}: {case.name}", arms_of(case, plan), case.judged)
        if pairs is None:
            continue
        entry = {
            "name": case.name,
            "model": case.model,
            "threads": case.threads,
            "sizes": asdict(plan.store.sizes(case.model)),
            "pairs": pairs,
        }
        result[kind].append(entry)
    return result
