"""What is measured, as data."""

from __future__ import annotations

from benchmarks import cases
from benchmarks.models import SHARED, WRITTEN
from benchmarks.sections import one_call_figures
from model_loader_cli.bench.comparison import AGAIN, DIRECT, ECHO, IN_PROCESS


def test_every_case_has_a_model_and_its_counts() -> None:
    known = {*WRITTEN, *SHARED}
    for case in (*cases.CALLS, *cases.PAYLOAD_CASES):
        assert case.model in known
        assert {IN_PROCESS, DIRECT, ECHO} <= set(case.arms)
        assert IN_PROCESS + AGAIN in case.arms
    names = [case.name for case in (*cases.CALLS, *cases.PAYLOAD_CASES)]
    assert len(names) == len(set(names))
    for figure, (case_name, _) in one_call_figures.FIGURES.items():
        (judged,) = [
            case for case in (*cases.CALLS, *cases.PAYLOAD_CASES) if case.name == case_name
        ]
        assert judged.judged, figure
