"""Each model of a published flaw is refused, by its rule, before a runtime sees it."""

from __future__ import annotations

import pytest

from loader_service.runtime.failures import InvalidModel, RuntimeFailure
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import costly, hostile, small
from loader_service.writer.one_operator import Regression
from loader_service.writer.vulnerabilities import REGRESSIONS


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda found: found.make.__name__)
def test_a_published_flaw_is_refused_by_its_rule(regression: Regression) -> None:
    with pytest.raises(RuntimeFailure, match=regression.says):
        verify(regression.make())


def test_every_report_of_the_list_has_a_model() -> None:
    reports = {regression.report for regression in REGRESSIONS}
    cves = {report for report in reports if report.startswith("CVE-")}
    assert len(cves) == 16
    assert {"tensorflow#124982", "tensorflow#60622"} <= reports


def test_a_branch_that_is_its_own_subgraph_is_refused() -> None:
    with pytest.raises(InvalidModel, match="calls itself"):
        verify(hostile.stack_overflow_at_load())


@pytest.mark.parametrize(
    "make",
    [hostile.abort_at_load, hostile.division_fault, hostile.gather, costly.endless, small.add],
)
def test_what_only_running_shows_is_left_to_the_sandbox(make: object) -> None:
    assert callable(make)
    verify(make())
