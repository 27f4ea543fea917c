"""A worker that leaves with status 0: whether it had a reason to, or left in the middle.

What counts as a crash is counted by the crash guard, which here lets no model crash even once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

import model_loader as ml
from loader_service.writer import small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.hostile.probes import Probe, ProbeService, model_with
from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS, RawSession, Service

pytestmark = pytest.mark.isolation

MODEL = small.add()
ONE = np.ones(1, np.float32)


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    """A service that refuses a model for long after one crash."""
    with Service(crash_loop_deaths=1, crash_loop_refusal_seconds=600) as service:
        yield service


def loss(probe: Probe) -> ml.ModelLoaderError:
    """Let the worker leave in the middle of a call; returns the error of that call."""
    error = probe.error("deaths.leave", status=0)
    assert probe.model.lost is not None
    assert probe.model.lost.reason == "crashed"
    return error


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
def test_leaving_in_the_middle_of_a_call_is_a_crash(service: ProbeService, relay: bool) -> None:
    with service.probe(relay=relay) as probe:
        error = loss(probe)
        assert isinstance(error, ml.OperationError)
        assert "ended by itself with status 0" in str(error)


def test_leaving_in_the_middle_of_a_load_or_an_inspection_is_a_crash(
    service: ProbeService,
) -> None:
    for _ in range(3):
        with pytest.raises(ml.OperationError, match="ended by itself with status 0"):
            service.probe("deaths.leave", status=0)
    found = service.connection.inspect(model_with("deaths.leave", status=0))
    assert found["failure"]["cause"] == "crashed"


def test_it_is_one_in_a_process_that_holds_several_models_too() -> None:
    with ProbeService(isolation="origin") as service:
        leaving, other = service.probe(), service.probe()
        assert leaving.pid == other.pid
        assert isinstance(loss(leaving), ml.OperationError)
        lost = other.model.lost
        assert lost is not None
        assert lost.reason == "crashed"
        with service.probe() as next_one:
            assert next_one.works()


def test_it_is_counted() -> None:
    with ProbeService(crash_loop_deaths=2) as service:
        loader = ml.MLModelLoader(ml.create_context(connection=service.connection))
        model = model_with()
        for _ in range(2):
            loss(Probe(loader.load(model)))
        with pytest.raises(ml.QuotaExceededError, match="died 2 times") as caught:
            loader.load(model)
        assert caught.value.limit == "crash_loop_deaths"


def by_closing_first(session: RawSession, model_id: str) -> None:
    """Close the channel, and the session when the worker has gone."""
    session.channel(model_id).close()
    request = pb.GetModelRequest(model_id=model_id, wait_seconds=HANG_SECONDS)
    assert session.call("GetModel", request).detail.cause == "closed"
    session.close()


def by_leaving_first(session: RawSession, model_id: str) -> None:
    """End the session, and then the channel."""
    channel = session.channel(model_id)
    session.close()
    channel.close()


def by_both_at_once(session: RawSession, model_id: str) -> None:
    """As the kernel does for a program that dies."""
    session.channel(model_id).close()
    session.close()


def by_never_taking_it(session: RawSession, model_id: str) -> None:
    """End the session while the broker still holds the channel."""
    session.close()


@pytest.mark.parametrize(
    "leave", [by_closing_first, by_leaving_first, by_both_at_once, by_never_taking_it]
)
def test_a_client_that_goes_is_no_crash(
    strict: Service, leave: Callable[[RawSession, str], None]
) -> None:
    for _ in range(10):
        session = RawSession(strict.directory, leave.__name__)
        leave(session, session.load(MODEL).model_id)
        strict.wait_for_workers([])


def test_a_client_that_is_killed_is_no_crash(strict: Service) -> None:
    program = f"""
import os, signal
import model_loader as ml
from loader_service.writer import small
connection = ml.connect({str(strict.directory)!r}, origin="killed")
models = [
    ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add())
    for _ in range(4)
]
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], check=False, cwd=REPOSITORY)
        assert done.returncode == -signal.SIGKILL
        strict.wait_for_workers([])


def test_a_model_that_the_library_closes_or_forgets_is_no_crash(strict: Service) -> None:
    for relay in (False, True):
        with ml.connect(strict.directory, origin="library", relay=relay) as connection:
            loader = ml.MLModelLoader(ml.create_context(connection=connection))
            for _ in range(10):
                with loader.load(MODEL) as closed:
                    closed.compute(ONE)
                loader.load(MODEL).compute(ONE)  # and forgotten
            left_open = loader.load(MODEL)
        with pytest.raises(ml.InvalidStateError):
            left_open.compute(ONE)
    strict.wait_for_workers([])
    assert "Traceback" not in strict.log()


def test_closing_during_a_call_is_no_crash() -> None:
    with ProbeService(crash_loop_deaths=1, crash_loop_refusal_seconds=600) as service:
        loader = ml.MLModelLoader(ml.create_context(connection=service.connection))
        model = model_with()
        with ThreadPoolExecutor(1) as pool:
            for _ in range(5):
                probe = Probe(loader.load(model))
                call = pool.submit(probe.error, "deaths.hang")
                while not call.running():
                    continue
                probe.close()
                assert isinstance(call.result(HANG_SECONDS), ml.InvalidStateError)


def test_a_channel_that_is_shut_down_and_kept_is_not_closed(strict: Service) -> None:
    """Who does so calls CloseModel first (CHANNEL.md)."""
    with RawSession(strict.directory, "shut") as session:
        for tell, cause in ((True, "closed"), (False, "crashed")):
            model_id = session.load(MODEL).model_id
            with session.channel(model_id) as channel:
                if tell:
                    session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))
                else:
                    channel.shutdown(2)
                request = pb.GetModelRequest(model_id=model_id, wait_seconds=HANG_SECONDS)
                assert session.call("GetModel", request).detail.cause == cause


def test_the_operators_kill_is_no_use_of_the_processors_time() -> None:
    """Not even of a worker that has used most of what it may."""
    # What the kernel counts for the limit runs ahead of what is seen here on a busy machine.
    limits = {"cpu_seconds": 3, "compute_seconds": 5 * HANG_SECONDS}
    with ProbeService(limits=limits) as service, service.probe() as probe:
        worker = psutil.Process(probe.pid)

        def kill_late() -> None:
            while sum(worker.cpu_times()[:2]) < 1.6:
                threading.Event().wait(0.01)
            os.kill(probe.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_late)
        killer.start()
        error = probe.error("deaths.use_processor")
        killer.join()
        assert probe.model.lost is not None
        assert (type(error), probe.model.lost.reason) == (ml.OperationError, "killed")
