"""Limits on what is under way: each acts, is named, and concerns its owner only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.broker.groups import Owner
from loader_service.broker.outstanding import Bound, LoadRate, Outstanding
from loader_service.broker.refusal import Refusal
from loader_service.writer import costly, small
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.broker.test_attach import as_user
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of

FOREVER = np.array([1], np.int32)
STRANGER = 54321
"""A user who may attach beside root."""
LOADS_AND_COMPUTES = """
import sys
from pathlib import Path
from loader_service.writer import small
from tests.broker.conftest import ONE
from tests.support.raw_client import RawSession
with RawSession(Path(sys.argv[1])) as session:
    reply = session.load(small.add(), relayed=True)
    print(len(session.compute(reply.model_id, ONE).outputs))
"""


def refused(call: Callable[[], object]) -> Failure:
    """The failure of what must be refused."""
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.failure


def over(call: Callable[[], object]) -> tuple[str, float, float]:
    """Which limit a call of the service was over, with the value and the maximum."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return numbers(caught.value)


def numbers(error: Any) -> tuple[str, float, float]:
    """The limit that a call was over, the value and the maximum."""
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    detail = detail_of(error)
    assert detail.cause == "limit"
    return detail.limit, detail.value, detail.maximum


def another_user_is_served(service: Service) -> None:
    """Where root runs the tests, load and compute as another user."""
    if os.geteuid() == 0:
        service.directory.chmod(0o755)
        assert as_user(
            LOADS_AND_COMPUTES, STRANGER, service.directory, "tests.broker.conftest"
        ) == ["1"]


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def test_a_load_counts_for_a_minute() -> None:
    clock = Clock()
    rate, owner = LoadRate(clock=clock), Owner(1, "a")
    rate.count(owner, 2)
    clock.now += 20
    rate.count(owner, 2)
    failure = refused(lambda: rate.count(owner, 2))
    assert (failure.cause, failure.limit) == (Cause.LIMIT, "loads_per_minute")
    assert (failure.value, failure.maximum) == (3, 2)
    assert "the next one may begin in 40.0 s" in failure.message
    for other in (Owner(1, "b"), Owner(2, "a")):
        rate.count(other, 2)
    # What was refused did not count.
    clock.now += 40
    rate.count(owner, 2)
    refused(lambda: rate.count(owner, 2))
    # A caller may be content with less.
    failure = refused(lambda: rate.count(owner, 1))
    assert (failure.value, failure.maximum) == (3, 1)


def test_quiet_origins_are_forgotten() -> None:
    clock = Clock()
    rate = LoadRate(clock=clock)
    for number in range(100):
        clock.now += 1
        rate.count(Owner(1, str(number)), 10)
        rate.count(Owner(1, "busy"), 1000)
    assert len(rate._begun) == 61


def test_what_is_held_is_the_principals_and_given_back() -> None:
    held = Outstanding("upload_bytes", "too much")
    with held.held(Owner(1, "a"), 60, 100) as grow_to:
        failure = refused(lambda: held.take(Owner(1, "b"), 41, 100))
        assert (failure.limit, failure.value, failure.maximum) == ("upload_bytes", 101, 100)
        grow_to(50)
        assert held.of(1) == 60
        grow_to(90)
        refused(lambda: grow_to(101))
        assert held.of(1) == 90
        with held.held(Owner(2, "a"), 100, 100):
            assert held.of(2) == 100
    assert (held.of(1), held.of(2)) == (0, 0)


def test_origins_and_all_have_bounds_of_their_own() -> None:
    held = Outstanding("mine", "too much", Bound("origin", 5), Bound("total", 12))
    held.take(Owner(1, "a"), 5, 8)
    assert over_bound(held, Owner(1, "a"), 1) == ("origin", 6, 5)
    assert over_bound(held, Owner(1, "b"), 4) == ("mine", 9, 8)
    held.take(Owner(2, "a"), 5, 8)
    assert over_bound(held, Owner(3, "a"), 3) == ("total", 13, 12)
    # What was refused at one level counts at none.
    held.take(Owner(3, "a"), 2, 8)
    for owner, amount in ((Owner(1, "a"), 5), (Owner(2, "a"), 5), (Owner(3, "a"), 2)):
        held.give_back(owner, amount)
    assert not held._held


def over_bound(held: Outstanding, owner: Owner, amount: int) -> tuple[str, float, float]:
    """What is refused, with the numbers; a principal may have eight."""
    failure = refused(lambda: held.take(owner, amount, 8))
    return failure.limit, failure.value, failure.maximum


def test_loads_of_a_principal_and_of_all_have_rates_of_their_own() -> None:
    clock = Clock()
    rate = LoadRate(Bound("principal", 3), Bound("total", 4), clock)
    rate.count(Owner(1, "a"), 2)
    rate.count(Owner(1, "a"), 2)
    assert refused(lambda: rate.count(Owner(1, "a"), 2)).limit == "loads_per_minute"
    rate.count(Owner(1, "b"), 2)
    assert refused(lambda: rate.count(Owner(1, "b"), 2)).limit == "principal"
    rate.count(Owner(2, "a"), 2)
    assert refused(lambda: rate.count(Owner(3, "a"), 2)).limit == "total"
    clock.now += 61
    rate.count(Owner(1, "a"), 2)
    assert len(rate._begun) == 3


@pytest.mark.parametrize("level", ["origin", "total"])
@pytest.mark.parametrize(
    ("what", "maximum", "value"), [("calls_in_flight", 2, 3), ("bytes_in_flight", 11, 12)]
)
def test_calls_of_an_origin_and_of_all(level: str, what: str, maximum: int, value: int) -> None:
    limit = f"{level}_{what}"
    settings: dict[str, Any] = {limit: maximum}
    with (
        Service({"compute_seconds": 20}, **settings) as service,
        RawSession(service.directory, "a") as session,
        RawSession(service.directory, "b") as other,
    ):
        busy = session.load(costly.endless(), relayed=True)
        theirs = other.load(small.add(), relayed=True)
        with ThreadPoolExecutor() as pool:
            calls = [pool.submit(session.compute, busy.model_id, FOREVER) for _ in range(3)]
            (refused_call,) = wait_for(calls, HANG_SECONDS, return_when="FIRST_COMPLETED").done
            assert numbers(refused_call.exception()) == (limit, value, maximum)
            if level == "total":
                found = over(lambda: other.compute(theirs.model_id, ONE))
                assert found == (limit, value, maximum)
            else:
                assert other.compute(theirs.model_id, ONE).outputs
            session.call("CloseModel", pb.CloseModelRequest(model_id=busy.model_id))
        assert other.compute(theirs.model_id, ONE).outputs


def test_loads_per_minute() -> None:
    model = small.add()
    with (
        Service({"loads_per_minute": 3}, allowed_uids=[STRANGER]) as service,
        RawSession(service.directory, "a") as session,
        RawSession(service.directory, "a") as same,
        RawSession(service.directory, "b") as other,
    ):
        kept = [session.load(model), same.load(model)]
        assert over(lambda: session.load(model, limits=pb.Limits(loads_per_minute=1))) == (
            "loads_per_minute",
            3,
            1,
        )
        kept.append(session.load(model))
        for mine in (session, same):
            assert over(partial(mine.load, model)) == ("loads_per_minute", 4, 3)
        kept.append(other.load(model))
        another_user_is_served(service)
        service.wait_for_workers([reply.isolation.worker_pid for reply in kept])


class SlowUpload:
    """An upload that stops after its first chunk until it is let go on, or ends."""

    def __init__(self, size: int) -> None:
        self._go_on = threading.Event()
        self._size = size

    def parts(self) -> Iterator[pb.LoadRequest]:
        """The messages."""
        yield pb.LoadRequest(header=pb.LoadHeader(size=self._size, model_format="tflite"))
        yield pb.LoadRequest(chunk=b"x" * 1000)
        self._go_on.wait(HANG_SECONDS)

    def end(self) -> None:
        """Let it end."""
        self._go_on.set()


def test_upload_bytes() -> None:
    big = small.add() + bytes(300_000)
    with (
        Service({"upload_bytes": 200_000}, allowed_uids=[STRANGER]) as service,
        RawSession(service.directory, "a") as session,
        RawSession(service.directory, "b") as other,
        ThreadPoolExecutor() as pool,
    ):
        # Announced, or just sent.
        assert over(lambda: session.load(big)) == ("upload_bytes", len(big), 200_000)
        limit, value, maximum = over(lambda: session.load(big, size=0))
        assert (limit, maximum) == ("upload_bytes", 200_000)
        assert 200_000 < value <= len(big)
        service.wait_for_workers([])
        slow = SlowUpload(199_000)
        pending = pool.submit(session.send_load, slow.parts())
        # It holds what it announced as soon as it has a worker.
        _wait_for_a_worker(service)
        model = small.add() + bytes(2000)
        # All origins of the user together.
        found = over(lambda: other.load(model))
        assert found == ("upload_bytes", 199_000 + len(model), 200_000)
        another_user_is_served(service)
        slow.end()
        with pytest.raises(grpc.RpcError) as caught:
            pending.result(HANG_SECONDS)
        assert detail_of(caught.value).cause == "cancelled"
        reply = other.load(model)
        service.wait_for_workers([reply.isolation.worker_pid])


def _wait_for_a_worker(service: Service) -> None:
    ended = threading.Event()
    for _ in range(int(HANG_SECONDS / 0.01)):
        if service.workers():
            return
        ended.wait(0.01)
    raise AssertionError("no worker came")


@pytest.mark.parametrize(
    ("limit", "maximum", "value"), [("calls_in_flight", 2, 3), ("bytes_in_flight", 11, 12)]
)
def test_calls_in_flight(limit: str, maximum: int, value: int) -> None:
    with (
        Service({limit: maximum, "compute_seconds": 20}, allowed_uids=[STRANGER]) as service,
        RawSession(service.directory) as session,
    ):
        busy = session.load(costly.endless(), relayed=True)
        idle = session.load(small.add(), relayed=True)
        with ThreadPoolExecutor() as pool:
            calls = [pool.submit(session.compute, busy.model_id, FOREVER) for _ in range(3)]
            done, waiting = wait_for(calls, HANG_SECONDS, return_when="FIRST_COMPLETED")
            # Whichever came last.
            (refused_call,) = done
            assert numbers(refused_call.exception()) == (limit, value, maximum)
            assert over(lambda: session.compute(idle.model_id, ONE)) == (limit, value, maximum)
            another_user_is_served(service)
            session.call("CloseModel", pb.CloseModelRequest(model_id=busy.model_id))
            assert sorted(_cause(call) for call in waiting) == ["closed", "lost"]
        assert len(session.compute(idle.model_id, ONE).outputs) == 1
        session.call("Reset", pb.ResetRequest(model_id=idle.model_id))


def _cause(call: Future[Any]) -> str:
    return detail_of(call.exception(HANG_SECONDS)).cause  # type: ignore[arg-type]
