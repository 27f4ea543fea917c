"""The fuzzing of models notices what it is there for: each is brought about, and must be found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import model_loader as ml
from loader_service.writer import small
from model_loader_wire.causes import Cause, Failure
from tests.fuzz.models import campaign, footprint
from tests.fuzz.models.asking import Outcome, ask, judged
from tests.fuzz.models.bystander import Bystander
from tests.fuzz.models.campaign import Campaign
from tests.fuzz.models.forked import end_of
from tests.fuzz.models.mutants import KINDS, Maker, Mutant
from tests.fuzz.models.seeds import own_seeds
from tests.fuzz.models.tally import MUST_BE_ZERO, Tally
from tests.support.processes import children

SEEDS = own_seeds()


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tally:
    """A tally for short campaigns."""
    monkeypatch.setattr(campaign, "WARMING", 4)
    monkeypatch.setattr(footprint, "STILL_SECONDS", 0.5)
    return Tally("test", tmp_path)


def run(
    tally: Tally,
    mutants: int = 20,
    interlude: Callable[[ml.Connection], None] | None = None,
    slack_seconds: float = campaign.SLACK_SECONDS,
) -> dict[str, int]:
    """Run a short campaign; returns what must be zero and is not."""
    short = Campaign(Maker(SEEDS, 1), tally)
    short.slack_seconds = slack_seconds
    if interlude is not None:
        short.interlude = interlude
    short.run(mutants)
    found = {name: tally.table.facts[name] for name in MUST_BE_ZERO if tally.table.facts[name]}
    assert tally.good == (not found)
    return found


def in_the_middle(tally: Tally, number: int) -> threading.Thread:
    """Send a signal to the broker that is about to be started, while mutants are under way."""
    before = set(children())

    def wait_and_send() -> None:
        while tally.table.inputs < 3:
            time.sleep(0.02)
        for child in set(children()) - before:
            os.kill(child, number)

    thread = threading.Thread(target=wait_and_send)
    thread.start()
    return thread


@pytest.mark.slow
def test_an_ordinary_run_finds_nothing(tally: Tally) -> None:
    assert run(tally, 40) == {}
    assert tally.table.inputs == 40
    assert tally.table.facts["right answers of the healthy model"] > 0
    assert tally.table.counts["clean error: invalid-model"] > 20


@pytest.mark.slow
def test_a_wrong_answer_of_the_healthy_model_is_noticed(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Bystander._ask

    def lie(self: Bystander, question: object) -> bytes:
        answer = honest(self, question)  # type: ignore[arg-type]
        return answer[::-1] if self.asked == 10 else answer

    monkeypatch.setattr(Bystander, "_ask", lie)
    found = run(tally)
    assert found == {"wrong answers of the healthy model": 1}


@pytest.mark.slow
def test_the_death_of_the_healthy_model_is_noticed(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Bystander.start

    def start_and_die(self: Bystander) -> None:
        start(self)
        os.kill(self._model.isolation.worker_pid, signal.SIGKILL)

    monkeypatch.setattr(Bystander, "start", start_and_die)
    assert run(tally) == {"wrong answers of the healthy model": 1}
    assert "killed" in tally.table.findings[0]


@pytest.mark.slow
def test_the_death_of_the_broker_is_noticed(tally: Tally) -> None:
    thread = in_the_middle(tally, signal.SIGKILL)
    found = run(tally, 100_000)
    thread.join()
    assert found["broker deaths"] == 1


@pytest.mark.slow
def test_what_hangs_is_noticed_and_ends(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "ALLOWED_SECONDS", 1.0)
    thread = in_the_middle(tally, signal.SIGSTOP)
    found = run(tally, 100_000, slack_seconds=1)
    thread.join()
    assert found["hangs"] >= 1
    assert "broker deaths" not in found


@pytest.mark.slow
def test_a_worker_that_is_left_is_noticed(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "QUIET_SECONDS", 2.0)
    kept = []

    def leave_a_model(connection: ml.Connection) -> None:
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        kept.append(loader.load(small.add()))

    found = run(tally, interlude=leave_a_model)
    assert found["leaks"] >= 2
    assert any("processes at the end" in finding for finding in tally.table.findings)
    assert any("descriptors at the end" in finding for finding in tally.table.findings)


@pytest.mark.slow
def test_a_process_that_outlives_the_service_is_noticed(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "ENDING_SECONDS", 0.5)
    left: list[subprocess.Popen[bytes]] = []

    def leave_a_process(connection: ml.Connection) -> None:
        left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))

    try:
        assert run(tally, interlude=leave_a_process) == {"leaks": 1}
    finally:
        for process in left:
            process.kill()
            process.wait()


def error(cause: Cause, message: str) -> ml.ModelLoaderError:
    """The error that the client makes of a failure."""
    from model_loader.errors import from_failure

    return from_failure(Failure(cause, message))


@pytest.mark.parametrize(
    ("cause", "message", "kind", "named"),
    [
        (Cause.INVALID_MODEL, "no", "refused", "invalid-model"),
        (Cause.FAILED, "no", "refused", "failed"),
        (Cause.CRASHED, "the worker crashed with SIGFPE: a fault", "death", "SIGFPE"),
        (Cause.CRASHED, "the worker ended by itself with status 3", "death", "status 3"),
        (Cause.TIMEOUT, "too late", "death", "timeout"),
        (Cause.OUT_OF_MEMORY, "too much", "death", "out-of-memory"),
        (Cause.INTERNAL, "oh", "fault", "internal"),
        (Cause.UNAVAILABLE, "gone", "fault", "unavailable"),
        (Cause.FORBIDDEN, "not yours", "fault", "forbidden"),
    ],
)
def test_an_error_is_counted_by_what_it_means(
    cause: Cause, message: str, kind: str, named: str
) -> None:
    assert judged(error(cause, message))[:2] == (kind, named)


def test_a_fault_of_the_service_is_a_finding_and_kept(tmp_path: Path) -> None:
    tally = Tally("test", tmp_path)
    mutant = Mutant(7, "add", KINDS[0], ("byte 1: 2 → 3",), b"bytes")
    tally.count(mutant, Outcome("fault", "internal", "oh"))
    assert not tally.good
    assert tally.table.facts["faults of the service"] == 1
    assert (tmp_path / "7-add-internal.tflite").read_bytes() == b"bytes"


def test_a_worker_that_died_by_a_fault_is_kept_and_no_finding(tmp_path: Path) -> None:
    tally = Tally("test", tmp_path)
    mutant = Mutant(7, "add", KINDS[0], (), b"bytes")
    tally.count(mutant, Outcome("death", "SIGSEGV"))
    tally.count(mutant, Outcome("death", "timeout"))
    assert tally.good
    assert [path.name for path in tmp_path.glob("*.tflite")] == ["7-add-SIGSEGV.tflite"]


def test_an_exception_that_is_no_error_of_the_service_is_a_fault() -> None:
    class Loader:
        def load(self, data: bytes) -> object:
            raise IndexError("what?")

    mutant = Maker(SEEDS, 1).mutant(0)
    outcome = ask(Loader(), mutant, 1)  # type: ignore[arg-type]
    assert outcome[:2] == ("fault", "IndexError")


def test_a_mutant_follows_from_its_seed_and_number() -> None:
    again = Maker(SEEDS, 1)
    mutants = [Maker(SEEDS, 1).mutant(number) for number in range(100)]
    assert [again.mutant(number) for number in reversed(range(100))] == mutants[::-1]
    assert {mutant.kind for mutant in mutants} == set(KINDS)
    assert len({mutant.data for mutant in mutants}) > 90
    other = Maker(SEEDS, 2)
    assert [other.mutant(number).data for number in range(100)] != [each.data for each in mutants]


@pytest.mark.forks
def test_how_a_child_ends_is_told() -> None:
    assert end_of(lambda: None) == "ended"
    assert end_of(lambda: [][0]) == "IndexError"
    assert end_of(lambda: os.kill(os.getpid(), signal.SIGFPE)) == "SIGFPE"
