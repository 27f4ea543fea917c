"""The crash-loop guard: which deaths count, for whom, how often, and for how long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest

from loader_service.broker.crash_guard import COUNTED, MODELS_KEPT, CrashGuard
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.writer import small
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.test_sessions import WorkerWithoutProcess
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of, load_parts

OWNER = Owner(1, "a")
MODEL = b"m" * 32
CRASH = Failure(Cause.CRASHED, "the worker crashed with SIGSEGV")


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Guarded:
    """A guard of three deaths in a minute, and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.guard = CrashGuard(
            Settings(
                directory="",
                crash_loop_deaths=3,
                crash_loop_seconds=60,
                crash_loop_refusal_seconds=30,
            ),
            self.clock,
        )

    def die(self, times: int, owner: Owner = OWNER, model: bytes = MODEL) -> None:
        """Count deaths."""
        for _ in range(times):
            self.guard.count(owner, model, CRASH)

    def refusal(self, owner: Owner = OWNER, model: bytes = MODEL) -> Failure | None:
        """Why the model is refused now, or None."""
        try:
            self.guard.check(owner, model)
        except Refusal as refusal:
            return refusal.failure
        return None


def test_the_refusal_says_how_often_why_and_how_long() -> None:
    guarded = Guarded()
    guarded.die(2)
    assert guarded.refusal() is None
    guarded.die(1)
    guarded.clock.now += 10
    failure = guarded.refusal()
    assert failure is not None
    assert failure.cause is Cause.CRASH_LOOP
    assert (failure.limit, failure.value, failure.maximum) == ("crash_loop_deaths", 3, 3)
    assert failure.message == (
        "the workers of this model died 3 times within 60 s, the last one because the worker "
        "crashed with SIGSEGV; it is refused for another 20.0 s"
    )


def test_the_refusal_ends_and_the_count_begins_anew() -> None:
    guarded = Guarded()
    guarded.die(3)
    guarded.clock.now += 29.9
    assert guarded.refusal() is not None
    guarded.clock.now += 0.2
    assert guarded.refusal() is None
    guarded.die(2)
    assert guarded.refusal() is None
    guarded.die(1)
    assert guarded.refusal() is not None


def test_deaths_long_ago_do_not_count() -> None:
    guarded = Guarded()
    guarded.die(2)
    guarded.clock.now += 61
    guarded.die(2)
    assert guarded.refusal() is None


@pytest.mark.parametrize(
    ("owner", "model"),
    [(Owner(2, "a"), MODEL), (Owner(1, "b"), MODEL), (OWNER, b"n" * 32)],
    ids=["principal", "origin", "model"],
)
def test_no_other_is_refused(owner: Owner, model: bytes) -> None:
    guarded = Guarded()
    guarded.die(3)
    assert guarded.refusal() is not None
    assert guarded.refusal(owner, model) is None


@pytest.mark.parametrize("cause", Cause)
def test_only_ends_that_are_the_models_doing_count(cause: Cause) -> None:
    guarded = Guarded()
    for _ in range(3):
        worker = WorkerWithoutProcess()
        guarded.guard.watch(OWNER, MODEL, cast(Worker, worker))
        worker.lost = Failure(cause, "it ended")
        for call in worker._told:
            call(worker)
    assert (guarded.refusal() is not None) is (cause in COUNTED)
    for voluntary in (Cause.CLOSED, Cause.KILLED, Cause.CANCELLED, Cause.TIMEOUT):
        assert voluntary not in COUNTED


def test_a_model_that_shared_anothers_death_is_not_counted() -> None:
    """Of a process that holds several models, when it is known which one was at work."""
    guarded = Guarded()
    for suspect in (False, False, False, True):
        worker = WorkerWithoutProcess()
        worker.suspect = suspect
        guarded.guard.watch(OWNER, MODEL, cast(Worker, worker))
        worker.lost = Failure(Cause.CRASHED, "it ended")
        for call in worker._told:
            call(worker)
    assert guarded.refusal() is None
    guarded.die(2)
    assert guarded.refusal() is not None


def test_what_is_remembered_is_bounded_and_the_principals_own() -> None:
    guarded = Guarded()
    guarded.die(3, Owner(2, "a"))
    guarded.die(3)
    for number in range(MODELS_KEPT):
        guarded.die(1, OWNER, number.to_bytes(32, "big"))
    assert guarded.refusal() is None
    assert guarded.refusal(Owner(2, "a")) is not None


def crash(session: RawSession, model: bytes) -> None:
    """Load a model and let its worker crash."""
    reply = session.load(model)
    os.kill(reply.isolation.worker_pid, signal.SIGABRT)
    request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=HANG_SECONDS)
    assert session.call("GetModel", request).detail.cause == "crashed"


def refused(call: Callable[[], object]) -> pb.ErrorDetail:
    """The detail of a call that must fail for want of a quota."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return detail_of(error)


def is_loaded(session: RawSession, model: bytes) -> bool:
    """Whether the model can be loaded; it may only be refused by the guard."""
    try:
        session.load(model)
    except grpc.RpcError as error:
        cause = detail_of(error).cause
    else:
        return True
    assert cause == "crash-loop"
    return False


def test_a_service_refuses_a_model_that_keeps_crashing() -> None:
    model, other = small.add(), small.add(3)
    with (
        Service(crash_loop_deaths=2, crash_loop_refusal_seconds=2) as service,
        RawSession(service.directory, "a") as session,
        RawSession(service.directory, "b") as neighbour,
    ):
        crash(session, model)
        crash(session, model)
        detail = refused(lambda: session.load(model))
        assert (detail.cause, detail.limit, detail.value) == ("crash-loop", "crash_loop_deaths", 2)
        assert "SIGABRT" in detail.message
        parts = load_parts(model)
        inspection = session.stub.Inspect
        detail = refused(lambda: inspection(parts, metadata=session.metadata, timeout=HANG_SECONDS))
        assert detail.cause == "crash-loop"
        # Other models of the origin, and the model in other origins, are not concerned.
        kept = [session.load(other), neighbour.load(model)]
        service.wait_for_workers([reply.isolation.worker_pid for reply in kept])
        ends = time.monotonic() + HANG_SECONDS
        while not is_loaded(session, model):
            assert time.monotonic() < ends
