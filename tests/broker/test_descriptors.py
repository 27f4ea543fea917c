"""Descriptors: what is held for a user has a bound, and some are kept for what has begun."""

from __future__ import annotations

import os
import resource
from typing import Any

import grpc
import pytest

from loader_service.broker import descriptors
from loader_service.broker.descriptors import OF_A_WORKER, RESERVE, Descriptors
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings
from loader_service.writer import small
from tests.broker.test_offers import ask, memory, offer
from tests.support.raw_client import AttachConnection, RawSession, Service, detail_of

MODEL = small.add()


def refused(held: Descriptors, principal: int, count: int) -> tuple[str, float, float]:
    """What a refusal says."""
    with pytest.raises(Refusal) as caught:
        held.take(principal, count)
    failure = caught.value.failure
    return failure.limit, failure.value, failure.maximum


def test_a_principal_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "in_use", lambda: 68)
    monkeypatch.setattr(descriptors, "allowed", lambda: 500)
    settings = Settings(directory="", allowed_uids=frozenset({os.geteuid() + 1}))
    held = Descriptors(settings, Principals(settings))
    assert held.of_principal == (500 - RESERVE - 68) // 2 == 200
    assert held.grpc_connections == 50
    assert held.kept_models == 25
    held.take(1, 125)
    assert refused(held, 1, 1) == ("principal_descriptors", 126, 125)
    held.take(2, 125)
    held.give_back(1, 8)
    held.take(1, 8)
    # In all, what is really open counts.
    monkeypatch.setattr(descriptors, "in_use", lambda: 467)
    assert refused(held, 3, 2) == ("total_descriptors", 469, 468)
    held.give_back(1, 125)
    held.give_back(2, 125)
    assert not held._held


def test_what_is_open_is_counted() -> None:
    before = descriptors.in_use()
    reading, writing = os.pipe()
    assert descriptors.in_use() == before + 2
    os.close(reading)
    os.close(writing)
    assert descriptors.allowed() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_more_than_the_kernel_allows_is_refused_by_name() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most == resource.RLIM_INFINITY:
        pytest.skip("the kernel sets no limit of descriptors here")
    service = Service(total_descriptors=most + 1)
    assert service.said["error"]["cause"] == "unsupported"
    assert "total_descriptors" in service.said["error"]["message"]
    assert service.wait() == 1


def test_a_user_at_its_limit_is_refused_connections_and_workers_by_name() -> None:
    most = 60
    with Service(principal_descriptors=most) as service, RawSession(service.directory) as session:
        free = most - most // 4 - most // 8
        silent = [AttachConnection(service.directory) for _ in range(free - 1 - OF_A_WORKER)]
        with session.channel(session.load(MODEL).model_id):
            with pytest.raises(grpc.RpcError) as caught:
                session.load(MODEL)
            detail = detail_of(caught.value)
            assert (detail.cause, detail.limit) == ("limit", "principal_descriptors")
            assert (detail.value, detail.maximum) == (free + OF_A_WORKER, free)
            over = AttachConnection(service.directory)
            assert over.receive()[0].error.limit == "principal_descriptors"
            over.close()
        for connection in silent:
            connection.close()
        service.wait_for_workers([])
        session.load(MODEL, relayed=True)


def test_offers_count() -> None:
    with Service(principal_descriptors=60) as service, RawSession(service.directory) as session:
        # This session's own connection is one of them; gRPC has a quarter, kept models an eighth.
        for _ in range(60 - 60 // 4 - 60 // 8 - 1):
            offer(session)
        with memory(MODEL) as descriptor:
            reply = ask(session, len(MODEL), descriptor)
        assert reply.error.limit == "principal_descriptors"
        with pytest.raises(grpc.RpcError) as caught:
            session.load(MODEL)
        assert detail_of(caught.value).limit == "principal_descriptors"


def test_the_reserve_is_not_eaten() -> None:
    with Service() as service, RawSession(service.directory) as session:
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        opened = len(os.listdir(f"/proc/{service.pid}/fd"))
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (opened + RESERVE, before[1]))
        with pytest.raises(grpc.RpcError) as caught:
            session.load(MODEL)
        error: Any = caught.value
        assert detail_of(error).limit == "total_descriptors"
        assert "ulimit -n" in detail_of(error).message
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        session.load(MODEL, relayed=True)
        assert "Traceback" not in service.log()
