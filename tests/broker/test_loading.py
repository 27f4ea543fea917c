"""Loads that cannot be: each refused with its cause, and nothing left of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import costly, hostile, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE, Bystander
from tests.faults.ground import trees_of
from tests.support.raw_client import (
    HANG_SECONDS,
    RawSession,
    Service,
    detail_of,
    exchange_over,
    load_parts,
)

Parts = Iterator[pb.LoadRequest]
MODEL = small.add()
HEADER = pb.LoadRequest(header=pb.LoadHeader(model_format="tflite", size=len(MODEL)))
CHUNK = pb.LoadRequest(chunk=MODEL)
TRAILER = pb.LoadRequest(trailer=pb.LoadTrailer(sha256=hashlib.sha256(MODEL).digest()))


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, pb.ErrorDetail]:
    """The status and the detail of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), detail_of(error)


def with_header(**values: Any) -> Parts:
    """A sound load with other values in its header."""
    return load_parts(MODEL, **values)


@pytest.mark.parametrize(
    ("parts", "code", "cause", "message"),
    [
        (lambda: iter([]), "INVALID_ARGUMENT", "invalid-input", "begins with its header"),
        (lambda: iter([CHUNK, HEADER]), "INVALID_ARGUMENT", "invalid-input", "begins with"),
        (lambda: iter([pb.LoadRequest()]), "INVALID_ARGUMENT", "invalid-input", "begins with"),
        (lambda: iter([HEADER, HEADER]), "INVALID_ARGUMENT", "invalid-input", "one header"),
        (
            lambda: iter([HEADER, CHUNK, pb.LoadRequest()]),
            "INVALID_ARGUMENT",
            "invalid-input",
            "one header, chunks, and one trailer",
        ),
        (lambda: iter([HEADER, CHUNK]), "CANCELLED", "cancelled", "before its trailer"),
        (lambda: iter([HEADER]), "CANCELLED", "cancelled", "before its trailer"),
        (
            lambda: iter([HEADER, TRAILER]),
            "INVALID_ARGUMENT",
            "invalid-model",
            f"announced with {len(MODEL)} bytes, 0 came",
        ),
        (
            lambda: iter([HEADER, CHUNK, CHUNK, TRAILER]),
            "INVALID_ARGUMENT",
            "invalid-model",
            f"announced with {len(MODEL)} bytes, more came",
        ),
        (
            lambda: load_parts(MODEL, size=len(MODEL) + 1),
            "INVALID_ARGUMENT",
            "invalid-model",
            f"announced with {len(MODEL) + 1} bytes, {len(MODEL)} came",
        ),
        (
            lambda: load_parts(MODEL, sha256=b"x" * 32),
            "INVALID_ARGUMENT",
            "invalid-model",
            "SHA-256 is not the one that was sent",
        ),
        (lambda: load_parts(b""), "INVALID_ARGUMENT", "invalid-model", ""),
        (lambda: load_parts(hostile.text_instead()), "INVALID_ARGUMENT", "invalid-model", "TFL3"),
        (
            lambda: with_header(model_format="onnx\x1b[2J"),
            "UNIMPLEMENTED",
            "unsupported",
            "the format 'onnx\\\\x1b[2J' is not supported; there is tflite",
        ),
        (
            lambda: with_header(device_preference="abacus"),
            "INVALID_ARGUMENT",
            "invalid-input",
            "no such device",
        ),
        (
            lambda: with_header(required_layers=["seccomp", "moat"]),
            "UNIMPLEMENTED",
            "unsupported",
            "required layers moat (moat: there is no layer of that name)",
        ),
        (
            lambda: with_header(required_layers=["x" * 5000] * 500),
            "UNIMPLEMENTED",
            "unsupported",
            "required layers",
        ),
        (
            lambda: with_header(limits=pb.Limits(load_seconds=float("nan"))),
            "INVALID_ARGUMENT",
            "invalid-input",
            "limit load_seconds must be above zero, not nan",
        ),
        (
            lambda: load_parts(hostile.custom_operator()),
            "UNIMPLEMENTED",
            "unsupported",
            "NobodyKnowsThis",
        ),
        (lambda: load_parts(hostile.abort_at_load()), "ABORTED", "crashed", "SIGABRT"),
        (
            lambda: load_parts(hostile.stack_overflow_at_load()),
            "INVALID_ARGUMENT",
            "invalid-model",
            "subgraph 1 calls itself",
        ),
    ],
)
def test_a_bad_load_is_refused(
    session: RawSession,
    bystander: Bystander,
    parts: Callable[[], Parts],
    code: str,
    cause: str,
    message: str,
) -> None:
    status, detail = refused(lambda: session.send_load(parts()))
    assert (status.name, detail.cause) == (code, cause), detail
    assert message in detail.message
    assert session.models() == [bystander.model_id]


@pytest.mark.parametrize("size", ["announced", "unknown"])
def test_a_model_comes_in_any_pieces(session: RawSession, size: str) -> None:
    def parts() -> Parts:
        announced = len(MODEL) if size == "announced" else 0
        yield pb.LoadRequest(header=pb.LoadHeader(model_format="tflite", size=announced))
        yield pb.LoadRequest(chunk=b"")
        for byte in MODEL:
            yield pb.LoadRequest(chunk=bytes([byte]))
        yield TRAILER

    reply = session.send_load(parts())
    assert reply.sha256 == hashlib.sha256(MODEL).digest()
    with session.channel(reply.model_id) as channel:
        assert np.frombuffer(exchange_over(channel, [ONE]).tensors[0], np.float32) == 2


@pytest.mark.parametrize(
    ("limit", "asked"),
    [("memory_bytes", 1 << 40), ("compute_seconds", 2), ("threads", 3), ("model_bytes", 1 << 52)],
)
def test_a_limit_can_only_be_lowered(session: RawSession, limit: str, asked: int) -> None:
    limits = pb.Limits(**{limit: asked})
    status, detail = refused(lambda: session.load(MODEL, limits=limits))
    assert (status.name, detail.cause) == ("RESOURCE_EXHAUSTED", "limit")
    assert (detail.limit, detail.value) == (limit, asked)
    assert 0 < detail.maximum < asked


def test_lowered_limits_are_in_force_and_said(session: RawSession) -> None:
    limits = pb.Limits(tensor_bytes=8, compute_seconds=0.5, cpu_seconds=100)
    reply = session.load(small.double(TensorType.FLOAT32, (4,)), limits=limits)
    assert (reply.limits.tensor_bytes, reply.limits.compute_seconds) == (8, 0.5)
    assert (reply.limits.cpu_seconds, reply.limits.memory_bytes) == (100, 1 << 30)
    with session.channel(reply.model_id) as channel:
        failure = exchange_over(channel, [np.ones(4, np.float32)]).failure
    assert failure is not None
    assert (failure.cause, failure.limit) == ("limit", "tensor_bytes")
    assert (failure.value, failure.maximum) == (16, 8)


def test_model_bytes_counts_what_is_announced_and_what_comes(session: RawSession) -> None:
    limits = pb.Limits(model_bytes=100)
    for size in (len(MODEL), 0):
        _, detail = refused(partial(session.load, MODEL, size=size, limits=limits))
        assert (detail.cause, detail.limit, detail.maximum) == ("limit", "model_bytes", 100)
        assert detail.value == len(MODEL)


def test_models_per_origin_holds_until_one_is_closed(session: RawSession) -> None:
    models = [session.load(MODEL, relayed=True) for _ in range(4)]
    status, detail = refused(lambda: session.load(MODEL))
    assert (status.name, detail.limit) == ("RESOURCE_EXHAUSTED", "models_per_origin")
    assert (detail.value, detail.maximum) == (5, 4)
    session.call("CloseModel", pb.CloseModelRequest(model_id=models[0].model_id))
    session.load(MODEL)


def test_the_load_deadline_ends_a_slow_upload(session: RawSession) -> None:
    over = threading.Event()

    def parts() -> Parts:
        yield HEADER
        yield pb.LoadRequest(chunk=MODEL[:10])
        over.wait(HANG_SECONDS)

    try:
        slow = pb.LoadHeader(model_format="tflite", limits=pb.Limits(load_seconds=0.3))
        status, detail = refused(
            lambda: session.send_load(_chain(pb.LoadRequest(header=slow), parts))
        )
    finally:
        over.set()
    assert (status.name, detail.cause) == ("DEADLINE_EXCEEDED", "timeout")
    assert (detail.limit, detail.maximum) == ("load_seconds", 0.3)
    assert detail.value >= 0.3


def _chain(first: pb.LoadRequest, parts: Callable[[], Parts]) -> Parts:
    yield first
    rest = parts()
    next(rest)
    yield from rest


def test_a_slow_upload_is_no_silence(session: RawSession) -> None:
    """Pings are for workers that serve: in an upload longer than their interval none comes."""
    pause = threading.Event()

    def parts() -> Parts:
        yield HEADER
        half = len(MODEL) // 2
        yield pb.LoadRequest(chunk=MODEL[:half])
        pause.wait(2.5)  # two intervals; compute_seconds is 1 here
        yield pb.LoadRequest(chunk=MODEL[half:])
        yield TRAILER

    assert session.send_load(parts()).model_id


def test_a_cancelled_upload_leaves_nothing(
    service: Service, session: RawSession, bystander: Bystander
) -> None:
    over, sent = threading.Event(), threading.Event()

    def parts() -> Parts:
        yield HEADER
        yield pb.LoadRequest(chunk=MODEL[:10])
        sent.set()
        over.wait(HANG_SECONDS)

    call = session.stub.Load.future(parts(), metadata=session.metadata)
    assert sent.wait(HANG_SECONDS)
    while len(service.workers()) < 2:
        assert not call.done()
    call.cancel()
    over.set()
    service.wait_for_workers([bystander.pid])
    assert session.load(MODEL).model_id


def test_a_session_that_ends_ends_its_load(
    service: Service, session: RawSession, bystander: Bystander
) -> None:
    over = threading.Event()

    def parts() -> Parts:
        yield HEADER
        over.wait(HANG_SECONDS)
        yield CHUNK
        yield TRAILER

    other = RawSession(service.directory)
    call = other.stub.Load.future(parts(), metadata=other.metadata)
    while len(service.workers()) < 2:
        assert not call.done()
    other.attach.close()
    service.wait_for_workers([bystander.pid])
    over.set()
    status, detail = refused(call.result)
    assert (status.name, detail.cause) == ("FAILED_PRECONDITION", "closed")
    other.close()


def test_a_load_that_computes_too_long_is_ended(service: Service) -> None:
    with RawSession(service.directory) as session:
        limits = pb.Limits(load_seconds=0.001)
        status, detail = refused(lambda: session.load(costly.work(), limits=limits))
        assert (status.name, detail.limit) == ("DEADLINE_EXCEEDED", "load_seconds")


def test_inspecting(session: RawSession, service: Service, bystander: Bystander) -> None:
    def inspect(model: bytes) -> Any:
        return session.stub.Inspect(
            load_parts(model), metadata=session.metadata, timeout=HANG_SECONDS
        )

    reply = inspect(MODEL)
    summary = json.loads(reply.summary)
    assert (summary["loads"], summary["failure"]) == (True, None)
    assert summary["file"]
    assert reply.sha256 == hashlib.sha256(MODEL).digest()
    assert "seccomp" in reply.isolation.layers
    # It was waited for: nothing is left when the answer comes.
    assert service.workers() == [bystander.pid]
    crashing = json.loads(inspect(hostile.abort_at_load()).summary)
    assert (crashing["loads"], crashing["failure"]["cause"]) == (False, "crashed")
    unknown = json.loads(inspect(hostile.custom_operator()).summary)
    assert (unknown["loads"], unknown["failure"]["cause"]) == (False, "unsupported")
    _, detail = refused(lambda: inspect(hostile.text_instead()))
    assert detail.cause == "invalid-model"


def test_a_model_that_nobody_claims_is_closed() -> None:
    with Service(claim_seconds=1) as service, RawSession(service.directory) as session:
        unclaimed = session.load(MODEL)
        claimed = session.load(MODEL)
        channel = session.channel(claimed.model_id)
        relayed = session.load(MODEL, relayed=True)
        request = pb.GetModelRequest(model_id=unclaimed.model_id, wait_seconds=HANG_SECONDS)
        state = session.call("GetModel", request)
        assert (state.lost, state.detail.cause) == (True, "cancelled")
        service.wait_for_workers(
            sorted([claimed.isolation.worker_pid, relayed.isolation.worker_pid])
        )
        assert np.frombuffer(exchange_over(channel, [ONE]).tensors[0], np.float32) == 2
        channel.close()


def test_cpu_percent_is_refused_where_no_cgroup_can_hold_it() -> None:
    with Service(cgroups=False) as service, RawSession(service.directory) as session:
        reply = session.load(MODEL)
        assert reply.isolation.memory_held_by == "rlimit-data"
        missing = {item.layer: item.reason for item in reply.isolation.missing}
        assert missing["cgroup-memory"] == "no writable cgroup with the memory controller"
        assert not {"cgroup-memory", "cgroup-cpu", "cgroup-pids"} & set(reply.isolation.layers)
        status, detail = refused(lambda: session.load(MODEL, limits=pb.Limits(cpu_percent=50)))
        assert (status.name, detail.cause) == ("UNIMPLEMENTED", "unsupported")
        assert "cpu_percent" in detail.message
        status, detail = refused(lambda: session.load(MODEL, required_layers=["cgroup-memory"]))
        assert (status.name, detail.cause) == ("UNIMPLEMENTED", "unsupported")


def test_a_service_does_not_start_with_a_limit_that_it_cannot_hold() -> None:
    service = Service({"cpu_percent": 50}, cgroups=False)
    assert service.said["error"]["cause"] == "unsupported"
    assert "cpu_percent" in service.said["error"]["message"]
    assert service.wait() == 1
    assert "Traceback" not in service.log()


def test_a_service_whose_options_cannot_be_leaves_nothing_of_what_it_began() -> None:
    service = Service({"models_per_origin": 241}, isolation="origin")
    assert service.said["error"]["cause"] == "bad-source"
    assert service.wait() == 2
    assert not trees_of(service.pid)
    assert "Traceback" not in service.log()
    service.forget()
