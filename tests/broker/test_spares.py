"""A process in waiting: who gets it, who does not, and when it goes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from loader_service.writer import small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.support.processes import wait_until_empty
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, exchange_over

MODEL = small.add()
CHANNELS: list[socket.socket] = []
"""Of the test that runs: a model ends with its channel."""


@pytest.fixture(autouse=True)
def channels() -> Iterator[None]:
    """Close the test's channels."""
    yield
    while CHANNELS:
        CHANNELS.pop().close()


@pytest.fixture(scope="module")
def lone_service() -> Iterator[Service]:
    """A service whose processes wait longer than any test takes."""
    with Service(spare_seconds=600) as service:
        yield service


@pytest.fixture
def waiting_service(lone_service: Service) -> Service:
    """The same without a process of the test before: its sessions may only just have ended."""
    lone_service.wait_for_workers([])
    return lone_service


def load(session: RawSession, **header: object) -> int:
    """Load a model that answers; gives its worker's pid."""
    reply = session.load(MODEL, **header)
    channel = session.channel(reply.model_id)
    CHANNELS.append(channel)
    answer = exchange_over(channel, [ONE])
    assert np.frombuffer(answer.tensors[0], np.float32) == 2
    return reply.isolation.worker_pid


def spare_beside(service: Service, *pids: int) -> int:
    """Wait for the one process that is no model's; gives its pid."""
    others: set[int] = set()

    def missing() -> list[int]:
        nonlocal others
        others = set(service.workers()) - set(pids)
        return [] if len(others) == 1 else [len(others)]

    assert not wait_until_empty(missing, HANG_SECONDS), service.workers()
    return others.pop()


def test_the_next_load_of_the_origin_gets_the_process_that_waits(waiting_service: Service) -> None:
    with RawSession(waiting_service.directory) as session:
        first = load(session)
        waiting = spare_beside(waiting_service, first)
        assert load(session) == waiting
        assert spare_beside(waiting_service, first, waiting) not in (first, waiting)
    waiting_service.wait_for_workers([])


def test_another_origin_does_not_get_it(waiting_service: Service) -> None:
    with (
        RawSession(waiting_service.directory, "one") as one,
        RawSession(waiting_service.directory, "other") as other,
    ):
        first = load(one)
        waiting = spare_beside(waiting_service, first)
        second = load(other)
        assert second != waiting
        assert load(one) == waiting


def test_a_load_with_other_limits_does_not_get_it(waiting_service: Service) -> None:
    with RawSession(waiting_service.directory) as session:
        first = load(session)
        waiting = spare_beside(waiting_service, first)
        second = load(session, limits=pb.Limits(memory_bytes=1 << 29))
        assert second != waiting
        third = load(session, limits=pb.Limits(memory_bytes=1 << 29), num_threads=2)
        assert third != waiting
        # Only the one of the last load's kind is left.
        spare_beside(waiting_service, first, second, third)


def test_one_that_died_is_not_missed(waiting_service: Service) -> None:
    with RawSession(waiting_service.directory) as session:
        first = load(session)
        waiting = spare_beside(waiting_service, first)
        os.kill(waiting, signal.SIGKILL)
        second = load(session)
        assert second not in (first, waiting)
        assert "Traceback" not in waiting_service.log()


def test_it_stays_while_its_origin_has_a_session(waiting_service: Service) -> None:
    with RawSession(waiting_service.directory) as session:
        first = load(session)
        with RawSession(waiting_service.directory) as again:
            second = load(again)
            waiting = spare_beside(waiting_service, first, second)
        waiting_service.wait_for_workers([first, waiting])
    waiting_service.wait_for_workers([])


def test_it_goes_when_nobody_loads_for_a_while() -> None:
    with Service(spare_seconds=0.3) as service, RawSession(service.directory) as session:
        first = load(session)
        service.wait_for_workers([first])
        assert load(session) != first


def test_none_is_made_above_half_of_the_processes() -> None:
    with (
        Service({"processes": 4}, spare_seconds=600) as service,
        RawSession(service.directory) as session,
    ):
        pids = [load(session)]
        spare_beside(service, *pids)
        pids += [load(session) for _ in range(3)]
        service.wait_for_workers(pids)


def test_none_is_made_where_the_settings_say_so() -> None:
    with Service(spare_seconds=0) as service, RawSession(service.directory) as session:
        pid = load(session)
        assert service.workers() == [pid]


def test_the_end_of_the_service_ends_it() -> None:
    with Service(spare_seconds=600) as service, RawSession(service.directory) as session:
        first = load(session)
        spare_beside(service, first)
    # The service's own ending asserts that no process of it is left.
