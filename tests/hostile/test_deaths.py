"""Each cause of death, produced for real through the service, and reported as what it was."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter

import psutil
import pytest

import model_loader as ml
from loader_service.broker.verdict import CRASHES
from tests.faults.ground import groups_of, trees_of
from tests.hostile.probe_runtime import FAULTS
from tests.hostile.probes import Probe, ProbeService, model_with
from tests.support.processes import wait_until_empty
from tests.support.waiting import wait_until

pytestmark = pytest.mark.isolation

HANG_SECONDS = 20.0
LONG_SECONDS = 100.0
"""In which a worker gets some seconds of a busy machine's processor."""
SIGNALS = {
    "division by zero": signal.SIGFPE,
    "illegal instruction": signal.SIGILL,
    "trap": signal.SIGTRAP,
    "privileged instruction": signal.SIGSEGV,
    "jump into nothing": signal.SIGSEGV,
}


def crashed_with(probe: Probe, number: signal.Signals, error: ml.ModelLoaderError) -> None:
    """Assert that the error, and the model, tell of a crash with this signal."""
    assert isinstance(error, ml.OperationError), repr(error)
    assert f"{number.name}: {CRASHES[number]}" in str(error)
    lost = probe.model.lost
    assert lost is not None
    assert lost.reason == "crashed"
    assert number.name in lost.detail


@pytest.fixture(params=["direct", "relayed"])
def probe(service: ProbeService, request: pytest.FixtureRequest) -> Probe:
    """A worker on each road; it does not outlive the test."""
    return service.probe(relay=request.param == "relayed")


def test_abort(probe: Probe) -> None:
    crashed_with(probe, signal.SIGABRT, probe.error("deaths.abort"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_processor(service: ProbeService, name: str) -> None:
    with service.probe() as probe:
        crashed_with(probe, SIGNALS[name], probe.error("deaths.run", code=FAULTS[name]))


def test_memory_that_is_not_its_own(probe: Probe) -> None:
    crashed_with(probe, signal.SIGSEGV, probe.error("deaths.read_null"))


def test_memory_that_is_not_there(probe: Probe) -> None:
    crashed_with(probe, signal.SIGBUS, probe.error("deaths.touch_beyond_file"))


def test_a_forbidden_call(probe: Probe) -> None:
    error = probe.error("calls.make", calls=[["socket", 2, 1, 0]])
    assert isinstance(error, ml.SecurityError)
    assert "system call that its sandbox forbids" in str(error)
    assert probe.model.lost is not None
    assert probe.model.lost.reason == "policy-violation"


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_an_end_by_itself(service: ProbeService, status: int) -> None:
    with service.probe() as probe:
        error = probe.error("deaths.leave", status=status)
        assert isinstance(error, ml.OperationError)
        assert f"status {status}" in str(error)


def test_a_deadline_of_the_caller(probe: Probe) -> None:
    assert probe.loss("deaths.hang", 0.3) == (ml.TimeoutError, "timeout")


def test_the_time_of_a_computation() -> None:
    with ProbeService(limits={"compute_seconds": 0.5}) as service:
        for relay in (False, True):
            with service.probe(relay=relay) as probe:
                error = probe.error("deaths.use_processor")
                assert isinstance(error, ml.TimeoutError)
                assert probe.model.lost is not None
                assert probe.model.lost.reason == "timeout"


def test_the_processors_time() -> None:
    with (
        ProbeService(limits={"cpu_seconds": 1, "compute_seconds": LONG_SECONDS}) as service,
        service.probe() as probe,
    ):
        error = probe.error("deaths.use_processor")
        assert isinstance(error, ml.QuotaExceededError)
        assert (error.limit, error.maximum) == ("cpu_seconds", 1)
        assert probe.model.lost is not None
        assert probe.model.lost.reason == "cpu-time"


@pytest.mark.slow
def test_the_processors_time_when_its_signal_is_ignored() -> None:
    with (
        ProbeService(limits={"cpu_seconds": 1, "compute_seconds": LONG_SECONDS}) as service,
        service.probe() as probe,
    ):
        error = probe.error("resources.block_signals")
        assert isinstance(error, ml.QuotaExceededError), repr(error)
        assert error.limit == "cpu_seconds"


def test_memory() -> None:
    with ProbeService(limits={"memory_bytes": 192 << 20}) as service, service.probe() as probe:
        error = probe.error("resources.fill_memory")
        assert isinstance(error, ml.QuotaExceededError)
        assert (error.limit, error.maximum) == ("memory_bytes", 192 << 20)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT], ids=lambda n: n.name)
def test_the_operator(probe: Probe, number: signal.Signals) -> None:
    """Of the others a worker with a pid namespace ignores most: it is process 1 there."""
    threading.Timer(0.2, os.kill, (probe.pid, number)).start()
    error = probe.error("deaths.hang")
    assert isinstance(error, ml.OperationError)
    assert number.name in str(error)
    assert probe.model.lost is not None
    assert probe.model.lost.reason == ("killed" if number == signal.SIGKILL else "crashed")


def test_a_worker_stopped_from_outside_has_its_deadline(service: ProbeService) -> None:
    with service.probe() as probe:
        os.kill(probe.pid, signal.SIGSTOP)
        assert probe.loss("inside.threads", 0.5) == (ml.TimeoutError, "timeout")


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended yet; nobody may have reaped it, now that its broker is dead."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
def test_the_brokers_death(relay: bool) -> None:
    service = ProbeService()
    try:
        probe = service.probe(relay=relay)
        worker = psutil.Process(probe.pid)
        threading.Timer(0.2, os.kill, (service.pid, signal.SIGKILL)).start()
        error = probe.error("deaths.hang")
        assert isinstance(error, ml.NetworkError), repr(error)
        assert probe.model.lost is not None
        assert probe.model.lost.reason == "unavailable"
        assert not wait_until_empty(lambda: [worker.pid] if _runs(worker) else [], HANG_SECONDS)
    finally:
        service.connection.close()
        service.close()


LOADS = {
    "deaths.abort": (ml.OperationError, "SIGABRT"),
    "deaths.read_null": (ml.OperationError, "SIGSEGV"),
    "deaths.use_processor": (ml.TimeoutError, "load_seconds"),
    "deaths.hang": (ml.TimeoutError, "load_seconds"),
    "resources.block_signals": (ml.TimeoutError, "load_seconds"),
    "resources.fill_memory": (ml.QuotaExceededError, "memory_bytes"),
}


ENDLESS = ("deaths.use_processor", "resources.block_signals")


@pytest.mark.parametrize(
    "attack",
    [pytest.param(name, marks=pytest.mark.slow) if name in ENDLESS else name for name in LOADS],
)
def test_a_death_in_the_middle_of_a_load(attack: str) -> None:
    kind, text = LOADS[attack]
    with ProbeService(limits={"memory_bytes": 192 << 20}) as service, service.probe() as other:
        # Of this load alone: the other's may take its time on a busy machine.
        limits = ml.Limits(load_seconds=1) if kind is ml.TimeoutError else None
        context = ml.create_context(connection=service.connection, limits=limits)
        with pytest.raises(kind, match=text):
            ml.MLModelLoader(context).load(model_with(attack))
        service.wait_for_workers([other.pid])
        assert other.works()


def test_a_violation_in_the_middle_of_a_load(service: ProbeService) -> None:
    with pytest.raises(ml.SecurityError, match="sandbox forbids"):
        service.probe("calls.make", calls=[["execve", "/bin/sh", 0, 0]])


def test_a_death_between_two_calls_is_told_without_being_asked(service: ProbeService) -> None:
    with service.probe() as probe:
        assert probe.works()
        os.kill(probe.pid, signal.SIGABRT)
        end = time.monotonic() + HANG_SECONDS
        while probe.model.lost is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert probe.model.lost.reason == "crashed"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_deaths_leave_nothing() -> None:
    """Descriptors, memory and cgroups of the broker after many deaths of many kinds.

    What is kept of models on purpose, each a descriptor, is left out: it is tested by itself.
    """
    with ProbeService(limits={"compute_seconds": 5}, kept_model_bytes=0) as service:
        broker = psutil.Process(service.pid)

        def round_of_deaths() -> None:
            for attack in ("deaths.abort", "deaths.read_null", "deaths.touch_beyond_file"):
                with service.probe() as probe:
                    probe.error(attack)
            with pytest.raises(ml.OperationError):
                service.probe("deaths.abort")
            with service.probe() as probe:
                assert probe.is_killed_for("socket", 1, 1, 0)

        def settle() -> None:
            service.wait_for_workers([])
            wait_until(lambda: not groups_of(service.pid), "the end of every worker's cgroup")

        for _ in range(5):
            round_of_deaths()
        settle()
        descriptors, memory = service.open_files(), broker.memory_info().rss
        for _ in range(3):  # its allocators find their size once, and a leak goes on
            for _ in range(20):
                round_of_deaths()
            settle()
            before, memory = memory, broker.memory_info().rss
            if memory - before < 1 << 20:
                break
        assert memory - before < 1 << 20
        kinds = _kinds(descriptors)
        wait_until(lambda: _kinds(service.open_files()) <= kinds, "the end of what was open")
    assert not trees_of(service.pid)


def _kinds(files: list[str]) -> Counter[str]:
    """Count open files by what they are, without the numbers that the kernel gives them."""
    return Counter(re.sub(r"\d+", "", file) for file in files)
