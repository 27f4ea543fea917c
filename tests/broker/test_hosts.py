"""The service with isolation by origin, spoken to raw: what callers do to each other there."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import psutil
import pytest

from loader_service.sandbox.layers import Layer
from loader_service.writer import costly, hostile, small
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import HEADER, Entry, Kind, pack_header, pack_table
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.test_health import NOT_SERVING, SERVING, Asked
from tests.support.raw_client import (
    HANG_SECONDS,
    RawSession,
    Service,
    detail_of,
    exchange_over,
    load_parts,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.isolation

ONE = np.array([1], np.float32)
MIB = 1 << 20
LARGE = 4 * MIB
LIMITS: dict[str, float] = {
    "compute_seconds": 100,
    "models_per_origin": 6,
    "memory_bytes": 192 * MIB,
}


def has_cgroups(service: Service) -> bool:
    """Whether a cgroup holds the workers' memory."""
    with RawSession(service.directory) as session:
        return Layer.CGROUP_MEMORY in session.welcome.session.layers


@pytest.fixture(scope="module", params=["cgroups", "without"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that isolates by origin, on a host with cgroups (if it has any) and without."""
    settings: dict[str, object] = {"isolation": "origin", "crash_loop_deaths": 2}
    if request.param == "without":
        settings["cgroups"] = False
    with Service(LIMITS, "auto", **settings) as service:
        if request.param == "cgroups" and not has_cgroups(service):
            pytest.skip("no writable cgroup: what is tested without them is the same")
        yield service
        service.wait_for_workers([])


@pytest.fixture
def session(service: Service) -> Iterator[RawSession]:
    """A session; at its end no process of its origin is left."""
    with RawSession(service.directory, "an origin") as session:
        yield session
    service.wait_for_workers([])


def answers(channel: socket.socket, addend: float = 1) -> bool:
    """Whether the model that adds answers rightly."""
    exchange = exchange_over(channel, [ONE])
    return bool(np.frombuffer(exchange.tensors[0], np.float32) == 1 + addend)


def state(session: RawSession, model_id: str) -> pb.ModelState:
    """What became of a model."""
    found: pb.ModelState = session.call(
        "GetModel", pb.GetModelRequest(model_id=model_id, wait_seconds=HANG_SECONDS)
    )
    return found


def loss(session: RawSession, model_id: str) -> pb.ModelState:
    """What became of a model that ends when it has used up some seconds of the processor."""
    for _ in range(4):  # which takes its time on a busy machine
        if (found := state(session, model_id)).lost:
            break
    return found


def slowly(model: bytes, stop_after: int, going_on: threading.Event) -> Iterator[pb.LoadRequest]:
    """The messages of a load, with a pause after so many of them."""
    for number, part in enumerate(load_parts(model)):
        if number == stop_after:
            going_on.wait(HANG_SECONDS)
        yield part


def large_request() -> tuple[bytes, int]:
    """A request whose answer no channel holds, with its length."""
    table = pack_table([Entry(DataType.FLOAT32, (LARGE // 16, 4), LARGE)])
    head = pack_header(Kind.COMPUTE, 5, payload_length=LARGE, table_length=len(table), tensors=1)
    return head + table + bytes(LARGE), len(head + table) + LARGE


def test_half_a_message_and_an_unread_answer_of_one_client_starve_nobody(
    session: RawSession,
) -> None:
    greedy = session.load(small.dynamic_batch())
    honest = session.load(small.add())
    assert greedy.isolation.worker_pid == honest.isolation.worker_pid
    request, length = large_request()
    with session.channel(greedy.model_id) as one, session.channel(honest.model_id) as other:
        one.sendall(request[:1000])
        for _ in range(20):
            assert answers(other)
        one.sendall(request[1000:])
        for _ in range(20):
            assert answers(other)
        received = 0
        while received < length:
            received += len(one.recv(LARGE))
        assert received == length
        one.sendall(b"?" * HEADER.size)
        assert one.recv(1) == b""
        assert state(session, greedy.model_id).lost
        assert answers(other)


def test_sessions_of_one_origin_share_a_process_and_end_their_own_models(
    service: Service, session: RawSession
) -> None:
    mine = session.load(small.add())
    with RawSession(service.directory, "an origin") as another:
        theirs = another.load(small.add(2))
        assert theirs.isolation.worker_pid == mine.isolation.worker_pid
        with pytest.raises(grpc.RpcError) as caught:
            session.call("GetModel", pb.GetModelRequest(model_id=theirs.model_id))
        assert detail_of(caught.value).cause == "forbidden"
        channel = another.channel(theirs.model_id)
        assert answers(channel, 2)
    assert channel.recv(1) == b""
    channel.close()
    with session.channel(mine.model_id) as own:
        assert answers(own)


def test_a_load_that_its_caller_gives_up_leaves_the_others(
    service: Service, session: RawSession
) -> None:
    kept = session.load(small.add())
    with session.channel(kept.model_id) as channel:
        for stop_after in (1, 2, 3):
            with RawSession(service.directory, "an origin") as leaving:
                going_on = threading.Event()
                parts = slowly(small.add(), stop_after, going_on)
                call = leaving.stub.Load.future(parts, metadata=leaving.metadata)
                assert answers(channel)
                call.cancel()
                going_on.set()
            assert answers(channel)
            # What was loaded all the same goes with its session, whose end the broker sees soon.
            wait_until(lambda: session.models() == [kept.model_id], "the others' end")
        # An upload that takes its time holds up nobody's load.
        slow = threading.Event()
        parts = slowly(small.add(7), 2, slow)
        call = session.stub.Load.future(parts, metadata=session.metadata)
        quick = session.load(small.add(3))
        assert answers(channel)
        slow.set()
        late: pb.LoadReply = call.result(HANG_SECONDS)
        with (
            session.channel(quick.model_id) as one,
            session.channel(late.model_id) as other,
        ):
            assert answers(one, 3)
            assert answers(other, 7)


def test_a_crash_loses_all_models_with_its_reason_and_no_other_origins(
    service: Service, session: RawSession
) -> None:
    with RawSession(service.directory, "bystander") as other:
        bystander = other.load(small.add())
        with other.channel(bystander.model_id) as channel:
            kept = [session.load(small.add(number)) for number in range(2)]
            with pytest.raises(grpc.RpcError) as caught:
                session.load(hostile.abort_at_load())
            assert detail_of(caught.value).cause == "crashed"
            for reply in kept:
                lost = state(session, reply.model_id)
                assert (lost.lost, lost.detail.cause) == (True, "crashed")
                assert "held 3 models of this origin" in lost.detail.message
            # Held against the model that was being loaded, and not against the others.
            with pytest.raises(grpc.RpcError):
                session.load(hostile.abort_at_load())
            with pytest.raises(grpc.RpcError) as caught:
                session.load(hostile.abort_at_load())
            assert detail_of(caught.value).cause == "crash-loop"
            assert session.load(small.add()).isolation.shared
            assert answers(channel)


def spin(model: pb.LoadReply, channel: socket.socket) -> None:
    """Begin a computation that does not end."""
    entries = [
        Entry(DataType(tensor.data_type), tuple(tensor.dimensions), tensor.byte_length)
        for tensor in model.description.signatures[0].inputs
    ]
    length = sum(entry.byte_length for entry in entries)
    table = pack_table(entries)
    head = pack_header(
        Kind.COMPUTE, 1, payload_length=length, table_length=len(table), tensors=len(entries)
    )
    channel.sendall(head + table + b"\1" * length)


@pytest.mark.parametrize("cause", ["crashed", pytest.param("cpu-time", marks=pytest.mark.slow)])
def test_a_death_between_loads_is_held_against_all_models(session: RawSession, cause: str) -> None:
    sources = [small.add(number + 10 * len(cause)) for number in (11, 12)]
    sources.append(small.add(99) if cause == "crashed" else costly.endless())
    for _ in range(2):
        *replies, last = (session.load(x, limits=pb.Limits(cpu_seconds=1)) for x in sources)
        with session.channel(last.model_id) as channel:
            if cause == "crashed":
                os.kill(last.isolation.worker_pid, signal.SIGABRT)
            else:
                spin(last, channel)
            for reply in replies:
                lost = loss(session, reply.model_id)
                assert lost.detail.cause == cause, lost
                if cause == "cpu-time":
                    assert (lost.detail.limit, lost.detail.maximum) == ("cpu_seconds", 3)
    for source in sources:
        with pytest.raises(grpc.RpcError) as caught:
            session.load(source)
        assert detail_of(caught.value).cause == "crash-loop"


def test_memory_is_added_up_and_allocated(session: RawSession) -> None:
    """One model may have 192 MiB; beside a second one it gets 256."""
    hog = session.load(costly.memory_hog_on_demand(), relayed=True)
    with session.channel(session.load(small.add()).model_id) as channel:
        answer = session.compute(hog.model_id, np.array([256], np.int32))
        assert np.frombuffer(answer.outputs[0].data, np.float32) == 1
        assert answers(channel)
        with pytest.raises(grpc.RpcError) as caught:
            session.compute(hog.model_id, np.array([2048], np.int32))
        detail = detail_of(caught.value)
        assert (detail.limit, detail.maximum) == ("memory_bytes", 384 * MIB)


def test_an_inspection_has_a_process_of_its_own(session: RawSession) -> None:
    mine = session.load(small.add())
    reply: pb.InspectReply = session.stub.Inspect(
        load_parts(small.add()), metadata=session.metadata, timeout=HANG_SECONDS
    )
    assert not reply.isolation.shared
    assert reply.isolation.worker_pid != mine.isolation.worker_pid


def test_a_closed_model_is_gone_from_the_list_and_the_process_stays(session: RawSession) -> None:
    replies = [session.load(small.add(number)) for number in range(3)]
    session.call("CloseModel", pb.CloseModelRequest(model_id=replies[1].model_id))
    assert set(session.models()) == {replies[0].model_id, replies[2].model_id}
    assert psutil.pid_exists(replies[0].isolation.worker_pid)
    lost = state(session, replies[1].model_id)
    assert (lost.lost, lost.detail.cause) == (True, "closed")
    with session.channel(replies[2].model_id) as channel:
        assert answers(channel, 2)


def test_health_is_each_models_own_until_the_process_dies(session: RawSession) -> None:
    asked = Asked(session)
    replies = [session.load(small.add()) for _ in range(3)]
    names = [f"model/{reply.model_id}" for reply in replies]
    session.call("CloseModel", pb.CloseModelRequest(model_id=replies[0].model_id))
    assert [asked.check(name) for name in names] == [NOT_SERVING, SERVING, SERVING]
    watched = [asked.watch(name) for name in names[1:]]
    assert [next(states).status for states in watched] == [SERVING] * 2
    os.kill(replies[0].isolation.worker_pid, signal.SIGKILL)
    assert [next(states).status for states in watched] == [NOT_SERVING] * 2
    for states in watched:
        states.cancel()
    assert asked.check("") == SERVING


def test_the_list_counts_each_models_calls(session: RawSession) -> None:
    replies = [session.load(small.add(number)) for number in range(2)]
    with session.channel(replies[1].model_id) as channel:
        for _ in range(3):
            answers(channel, 1)
        ends = time.monotonic() + HANG_SECONDS
        wanted = {replies[0].model_id: 0, replies[1].model_id: 3}
        while True:  # the counts come with the next ping
            rows = session.call("ListModels", pb.ListModelsRequest()).models
            if {row.model_id: row.calls for row in rows} == wanted:
                break
            assert time.monotonic() < ends, rows
            time.sleep(0.01)
        assert all(row.isolation.shared for row in rows)
