"""Blocks of calls, back to back, spaced, and beside another process."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from model_loader_cli.bench.blocks import Condition, measure, spinner, warm_up
from tests.support.processes import state_of
from tests.support.waiting import wait_until


def test_each_block_has_its_calls_and_its_steal() -> None:
    calls = []
    blocks = measure(lambda: calls.append(1), Condition(name="all", calls=5, blocks=3))
    assert [len(block["ns"]) for block in blocks] == [5, 5, 5]
    assert len(calls) == 15
    assert all(block["stolen"] >= 0 for block in blocks)


def test_spaced_calls_do_not_begin_early() -> None:
    began: list[float] = []
    condition = Condition(name="sparse", calls=5, blocks=1, every_ms=20)
    start = monotonic()
    measure(lambda: began.append(monotonic()), condition)
    assert all(at - start >= 0.02 * number for number, at in enumerate(began, 1))


def test_the_spinner_runs_beside_the_calls_and_ends_with_them() -> None:
    with spinner(True) as pid:
        assert pid is not None
        wait_until(lambda: state_of(pid) == "R", "the spinner's spinning")
    assert not Path(f"/proc/{pid}").exists()
    with spinner(False) as nobody:
        assert nobody is None


def test_a_slow_call_is_not_warmed_up_for_ever() -> None:
    calls = []
    warm_up(lambda: calls.append(1))
    assert len(calls) == 20
