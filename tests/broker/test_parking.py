"""Models that are parked: their processes end for a while, and their clients notice nothing."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.writer import small, stateful
from model_loader_wire.causes import Cause
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.devices.little_delegate import compile_delegate
from tests.support.memories import memories
from tests.support.raw_client import (
    RawSession,
    Service,
    detail_of,
    exchange_over,
    receive,
    request_of,
    send,
)
from tests.support.stopping import stopped
from tests.support.waiting import wait_until

QUICK: dict[str, Any] = {"ping_seconds": 0.05, "keep_alive_seconds": 0.1}
"""Settings by which a model is parked soon after its last call."""
CLOSE = "CloseModel"


def row(session: RawSession, model_id: str) -> pb.ModelRow:
    """Return a model's row of the list."""
    rows = session.call("ListModels", pb.ListModelsRequest()).models
    found: list[pb.ModelRow] = [item for item in rows if item.model_id == model_id]
    return found[0]


def wait_until_parked(session: RawSession, model_id: str) -> None:
    """Wait until a model has no process."""
    wait_until(lambda: row(session, model_id).worker_pid == 0, "parked")


def sum_over(channel: socket.socket) -> float:
    """Compute 1 + 1."""
    answer = exchange_over(channel, [ONE])
    assert answer.failure is None, answer.failure
    return float(np.frombuffer(answer.tensors[0], np.float32)[0])


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that parks soon."""
    with Service({"compute_seconds": 15, "models_per_origin": 4}, **QUICK) as service:
        yield service


@pytest.fixture
def session(service: Service) -> Iterator[RawSession]:
    """A session of the test's own; nothing of it is left."""
    with RawSession(service.directory) as session:
        yield session
    service.wait_for_workers([])


def test_a_parked_model_has_no_process_and_comes_back_at_a_call(
    service: Service, session: RawSession
) -> None:
    loaded = session.load(small.add())
    channel = session.channel(loaded.model_id)
    assert sum_over(channel) == 2
    wait_until_parked(session, loaded.model_id)
    service.wait_for_workers([])
    found = row(session, loaded.model_id)
    assert (found.calls, found.memory_bytes, found.cpu_seconds) == (1, 0, 0)
    assert not session.call("GetModel", pb.GetModelRequest(model_id=loaded.model_id)).lost
    assert sum_over(channel) == 2
    assert row(session, loaded.model_id).worker_pid != loaded.isolation.worker_pid
    wait_until(lambda: row(session, loaded.model_id).calls == 2, "the count of calls")
    channel.close()
    wait_until(lambda: not session.models(), "the model's end")


def test_a_relayed_model_is_parked_and_comes_back(service: Service, session: RawSession) -> None:
    model_id = session.load(small.add(), relayed=True).model_id
    for _ in range(2):
        (output,) = session.compute(model_id, ONE).outputs
        assert np.frombuffer(output.data, np.float32) == 2
        wait_until_parked(session, model_id)
        service.wait_for_workers([])


@pytest.mark.slow
def test_a_model_on_a_device_comes_back_on_that_device(session: RawSession) -> None:
    options = pb.DeviceOptions(accelerator_name="reference")
    loaded = session.load(small.add(), device_options=options)
    request = pb.GetDelegationRequest(model_id=loaded.model_id)
    devices = [device.name for device in session.call("GetDelegation", request).delegation.devices]
    channel = session.channel(loaded.model_id)
    for _ in range(2):
        wait_until_parked(session, loaded.model_id)
        assert sum_over(channel) == 2
        again = session.call("GetDelegation", request).delegation.devices
        assert [device.name for device in again] == devices
    assert devices
    channel.close()


@pytest.mark.slow
def test_of_a_model_that_came_back_without_its_device_the_report_says_so(tmp_path: Path) -> None:
    library = compile_delegate(tmp_path)
    options = pb.DeviceOptions(execution_preference="undefined")
    with (
        Service(None, "auto", devices=[f"external:little={library}"], **QUICK) as service,
        RawSession(service.directory) as session,
    ):
        loaded = session.load(small.add(), device_options=options)
        request = pb.GetDelegationRequest(model_id=loaded.model_id)
        with session.channel(loaded.model_id) as channel:
            for device in ("external:little", "xnnpack"):
                assert sum_over(channel) == 2
                report = session.call("GetDelegation", request).delegation
                assert [part.device for part in report.partitions] == [device]
                wait_until_parked(session, loaded.model_id)
                library.unlink(missing_ok=True)


@pytest.mark.parametrize("model", [stateful.counter(), stateful.running_sum()])
def test_a_model_that_keeps_state_is_never_parked(model: bytes, session: RawSession) -> None:
    """It is still there when another, loaded after it, was parked twice."""
    loaded = session.load(model)
    with session.channel(loaded.model_id) as channel:
        other = session.load(small.add(), relayed=True).model_id
        for _ in range(2):
            wait_until_parked(session, other)
            assert row(session, loaded.model_id).worker_pid == loaded.isolation.worker_pid
            session.compute(other, ONE)
        shape = (1,) if model == stateful.counter() else (1, 1)
        total = 0.0
        for _ in range(2):
            answer = exchange_over(channel, [np.ones(shape, np.float32)])
            total = float(np.frombuffer(answer.tensors[0], np.float32)[0])
        assert total == 2


def test_a_parked_model_that_its_client_lets_go_of_is_closed(session: RawSession) -> None:
    first, second = (session.load(small.add()).model_id for _ in range(2))
    channel = session.channel(first)
    for model_id in (first, second):
        wait_until_parked(session, model_id)
    channel.close()
    wait_until(lambda: session.models() == [second], "the end of the first")
    state = session.call("GetModel", pb.GetModelRequest(model_id=first))
    assert state.detail.cause == "closed"
    session.call(CLOSE, pb.CloseModelRequest(model_id=second))
    assert session.models() == []


def test_a_session_that_ends_leaves_nothing_of_its_parked_models(service: Service) -> None:
    # Those of the tests before may only be going.
    wait_until(lambda: memories(service.pid) == 0, "the end of what others held")
    before = service.open_files()
    with RawSession(service.directory) as session:
        channel = session.channel(session.load(small.add()).model_id)
        for model_id in session.models():
            wait_until_parked(session, model_id)
        assert memories(service.pid) > 0
    assert channel.recv(1) == b""
    channel.close()

    def left() -> list[str]:
        kinds = [name.partition(":")[0] for name in service.open_files()]
        return [name for name in set(kinds) if kinds.count(name) > kinds_before.count(name)]

    kinds_before = [name.partition(":")[0] for name in before]
    wait_until(lambda: not left() and memories(service.pid) == 0, "what it held")


@pytest.mark.slow
def test_a_model_for_which_there_is_no_room_stays_parked_and_its_call_is_refused() -> None:
    limits: dict[str, float] = {"processes": 1, "models_per_origin": 4}
    with Service(limits, **QUICK) as service, RawSession(service.directory) as session:
        parked = session.load(small.add()).model_id
        channel = session.channel(parked)
        wait_until_parked(session, parked)
        # A model with state keeps the only process that there may be.
        other = session.load(stateful.counter()).model_id
        for _ in range(2):
            answer = exchange_over(channel, [ONE])
            assert answer.failure is not None
            assert (answer.failure.cause, answer.failure.limit) == (Cause.LIMIT, "processes")
            assert row(session, parked).worker_pid == 0
        session.call(CLOSE, pb.CloseModelRequest(model_id=other))
        assert sum_over(channel) == 2
        wait_until_parked(session, parked)
        relayed = session.load(small.add(), relayed=True).model_id
        wait_until_parked(session, relayed)
        session.load(stateful.counter())
        with pytest.raises(grpc.RpcError) as caught:
            session.compute(relayed, ONE)
        assert detail_of(caught.value).limit == "processes"
        assert relayed in session.models()
        channel.close()


@pytest.mark.slow
def test_of_two_called_at_the_same_moment_one_comes_back_where_there_is_room_for_one() -> None:
    limits: dict[str, float] = {"processes": 1, "models_per_origin": 2}
    with Service(limits, **QUICK) as service, RawSession(service.directory) as session:
        channels = []
        for _ in range(2):
            model_id = session.load(small.add()).model_id
            channels.append(session.channel(model_id))
            wait_until_parked(session, model_id)
        # While it is stopped both calls come: then it sees them in one look.
        calls = [request_of([ONE]) for _ in channels]
        with stopped(service.pid):
            for channel, call in zip(channels, calls, strict=True):
                send(channel, call)
        failures = [receive(*both).failure for both in zip(channels, calls, strict=True)]
        (refused,) = filter(None, failures)
        assert (refused.cause, refused.limit) == (Cause.LIMIT, "processes")
        for model_id, channel in zip(session.models(), channels, strict=True):
            wait_until_parked(session, model_id)
            channel.close()


@pytest.mark.slow
def test_a_model_without_room_for_its_bytes_is_not_parked() -> None:
    size = len(small.add())
    room = size + size // 2
    with (
        Service(parked_model_bytes=room, **QUICK) as service,
        RawSession(service.directory) as session,
    ):
        first, second = (session.load(small.add()) for _ in range(2))
        wait_until_parked(session, first.model_id)
        service.wait_for_workers([second.isolation.worker_pid])
        session.call(CLOSE, pb.CloseModelRequest(model_id=first.model_id))
        third = session.load(small.add())
        wait_until_parked(session, third.model_id)
        assert row(session, second.model_id).worker_pid == second.isolation.worker_pid


@pytest.mark.slow
def test_under_pressure_all_that_are_idle_are_parked() -> None:
    # More than any machine has: each look parks one.
    with (
        Service(ping_seconds=0.3, memory_pressure_bytes=1 << 50) as service,
        RawSession(service.directory) as session,
    ):
        loaded = [session.load(small.add()).model_id for _ in range(3)]
        for model_id in loaded:
            wait_until_parked(session, model_id)
        service.wait_for_workers([])


@pytest.mark.slow
def test_models_of_a_shared_process_are_not_parked() -> None:
    with Service(isolation="origin", **QUICK) as service, RawSession(service.directory) as session:
        channel = session.channel(session.load(small.add()).model_id)
        (pid,) = service.workers()
        for _ in range(3):
            assert sum_over(channel) == 2
            time.sleep(5 * QUICK["keep_alive_seconds"])
        service.wait_for_workers([pid])
        channel.close()


@pytest.mark.slow
def test_a_worker_that_dies_by_itself_is_lost_as_ever() -> None:
    with Service(keep_alive_seconds=600) as service, RawSession(service.directory) as session:
        loaded = session.load(small.add())
        channel = session.channel(loaded.model_id)
        assert sum_over(channel) == 2
        os.kill(loaded.isolation.worker_pid, signal.SIGKILL)
        assert channel.recv(1) == b""
        state = session.call("GetModel", pb.GetModelRequest(model_id=loaded.model_id))
        assert state.detail.cause == "killed"
        channel.close()
