"""A worker that takes all it can get: it meets a limit, and nobody else notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_loader as ml
from loader_service.broker.last_words import KEPT, PER_SECOND
from tests.hostile.probes import Probe, ProbeService, model_with

pytestmark = pytest.mark.isolation

MEMORY = 192 << 20
TERMINAL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
"""Clears a screen, sets a title, and turns the text around."""


@pytest.fixture(scope="module")
def lone_service() -> Iterator[ProbeService]:
    """Little memory, little time."""
    with ProbeService(limits={"compute_seconds": 4, "memory_bytes": MEMORY}) as service:
        yield service


@pytest.mark.parametrize("how", ["fill_memory", "map_memory"])
def test_memory(probe: Probe, how: str) -> None:
    error = probe.error(f"resources.{how}")
    if "cgroup-memory" in probe.model.isolation.layers:
        assert isinstance(error, ml.QuotaExceededError)
        assert (error.limit, error.maximum) == ("memory_bytes", MEMORY)
        assert probe.model.lost is not None
        assert probe.model.lost.reason == "out-of-memory"
    elif how == "fill_memory":
        # RLIMIT_DATA makes an allocation fail, and Python tells.
        assert isinstance(error, ml.QuotaExceededError)
        assert error.limit == "memory_bytes"
    else:
        # One that does not care goes on until its time is up.
        assert isinstance(error, ml.QuotaExceededError | ml.TimeoutError)


def test_the_break(probe: Probe) -> None:
    if "cgroup-memory" in probe.model.isolation.layers:
        assert probe.loss("resources.grow_break") == (ml.QuotaExceededError, "out-of-memory")
    else:
        assert probe.ask("resources.grow_break") <= MEMORY


def test_threads(probe: Probe) -> None:
    assert probe.ask("resources.start_threads", wanted=100) == 0
    assert probe.works()


@pytest.fixture
def threaded(service: ProbeService) -> Iterator[Probe]:
    """A worker that may have threads."""
    context = ml.create_context(connection=service.connection, num_threads=2)
    with Probe(ml.MLModelLoader(context).load(model_with())) as probe:
        yield probe


def test_threads_up_to_the_models_own(threaded: Probe) -> None:
    started = threaded.ask("resources.start_threads", wanted=500)
    assert 2 <= started < 16
    assert threaded.works()


def test_a_new_thread_has_the_same_filter_and_ends_the_whole_worker(threaded: Probe) -> None:
    loss = threaded.loss("resources.violate_in_thread")
    assert loss == (ml.SecurityError, "policy-violation")


def test_descriptors(probe: Probe) -> None:
    assert all(result < 0 for result in probe.ask("resources.take_descriptors"))
    if os.geteuid() == 0:
        assert len(list(Path(f"/proc/{probe.pid}/fd").iterdir())) == 5


def test_the_processor_is_taken_for_the_calls_time_only(probe: Probe) -> None:
    assert probe.loss("deaths.use_processor") == (ml.TimeoutError, "timeout")


def test_a_worker_that_blocks_and_ignores_every_signal_ends_all_the_same(probe: Probe) -> None:
    assert probe.loss("resources.block_signals", 0.5) == (ml.TimeoutError, "timeout")


def test_a_little_on_standard_error_is_let_through_escaped(probe: Probe) -> None:
    error = probe.error("deaths.say_and_abort", text=f"before{TERMINAL}after")
    assert error.last_words.startswith("before\\x1b[2J")
    assert error.last_words.endswith("after")
    assert error.last_words.isprintable()
    assert str(error).replace("\n", "").isprintable()


def test_the_last_words_are_the_last(probe: Probe) -> None:
    error = probe.error("deaths.say_and_abort", text="x" * 50_000 + "\nthe end")
    assert error.last_words.endswith("the end")
    assert len(error.last_words) <= KEPT


def test_a_flood_on_standard_error_slows_only_its_worker(
    service: ProbeService, bystander: Probe, probe: Probe
) -> None:
    before = _bytes_read(service.pid)
    began = time.monotonic()
    assert probe.loss("resources.flood_stderr_for_ever", text=TERMINAL) == (
        ml.TimeoutError,
        "timeout",
    )
    assert bystander.works()
    seconds = time.monotonic() - began
    assert _bytes_read(service.pid) - before < (seconds + 2) * PER_SECOND
    assert TERMINAL[:4] not in service.log()


def _bytes_read(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"])


def test_a_finite_flood_is_survived_by_its_own_worker(probe: Probe) -> None:
    assert probe.ask("resources.flood_stderr", text=TERMINAL * 10, count=1000) == 1000
    assert probe.works()
