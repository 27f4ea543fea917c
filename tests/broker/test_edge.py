"""The gRPC edge: every failure has its code and its detail, whatever was sent or broke."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import grpc
import numpy as np
import pytest

from loader_service.broker import edge as broker_edge
from loader_service.broker.refusal import Refusal
from loader_service.writer import small
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE, Bystander
from tests.support.processes import wait_until_empty
from tests.support.raw_client import (
    HANG_SECONDS,
    RawSession,
    Service,
    detail_of,
    exchange_over,
    message_of,
)

MODEL = small.add()


def refused(call: Callable[[], object]) -> tuple[str, pb.ErrorDetail]:
    """The status and the detail of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, detail_of(error)


UNARY = {
    "Formats": pb.FormatsRequest(),
    "Compute": pb.ComputeRequest(model_id="x"),
    "Reset": pb.ResetRequest(model_id="x"),
    "CloseModel": pb.CloseModelRequest(model_id="x"),
    "GetModel": pb.GetModelRequest(model_id="x"),
    "ListModels": pb.ListModelsRequest(),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("model-loader-session", ""),),
        (("model-loader-session", "00" * 32),),
        (("model-loader-session", "no hex"),),
        (("model-loader-session", "ab" * 2000),),
    ],
    ids=["none", "empty", "wrong", "no hex", "long"],
)
def test_no_call_without_a_session(session: RawSession, name: str, metadata: Any) -> None:
    call = getattr(session.stub, name)
    code, detail = refused(lambda: call(UNARY[name], metadata=metadata, timeout=HANG_SECONDS))
    assert (code, detail.cause) == ("PERMISSION_DENIED", "forbidden")
    assert "session" in detail.message


def test_loads_need_a_session_too(session: RawSession) -> None:
    for call in (session.stub.Load, session.stub.Inspect):
        code, detail = refused(partial(call, iter([]), timeout=HANG_SECONDS))
        assert (code, detail.cause) == ("PERMISSION_DENIED", "forbidden")


@pytest.mark.parametrize("name", ["Compute", "Reset", "GetModel"])
def test_an_unknown_or_foreign_model_is_forbidden(
    session: RawSession, bystander: Bystander, name: str
) -> None:
    for model_id in ("", "x", bystander.model_id, "\N{SNOWMAN}" * 1000):
        request = type(UNARY[name])(model_id=model_id)
        code, detail = refused(partial(session.call, name, request))
        assert (code, detail.cause) == ("PERMISSION_DENIED", "forbidden")


def test_closing_what_is_not_there_is_no_error(session: RawSession, bystander: Bystander) -> None:
    for model_id in ("", "x", bystander.model_id):
        session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))


def tensor(**changes: Any) -> pb.Tensor:
    """A sound input of the model with some fields changed."""
    values: dict[str, Any] = {"data_type": 6, "dimensions": [1], "data": ONE.tobytes()}
    return pb.Tensor(**values | changes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "0 inputs came, 1 are needed"),
        ([tensor(), tensor()], "2 inputs came"),
        ([tensor(data_type=99)], "there is no data type 99"),
        ([tensor(data_type=-1)], "there is no data type -1"),
        ([tensor(data_type=3)], "not float64"),
        ([tensor(data_type=0)], "not unknown"),
        ([tensor(dimensions=[2])], "not float32 (2,)"),
        ([tensor(dimensions=[])], "not float32 ()"),
        ([tensor(dimensions=[-1])], "not float32 (-1,)"),
        ([tensor(dimensions=[2**63 - 1] * 40)], "not float32"),
        ([tensor(dimensions=[1] * 300)], "not float32"),
        ([tensor(data=b"")], "has 0 bytes, expected 4"),
        ([tensor(data=b"12345")], "has 5 bytes, expected 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_that_do_not_fit_are_refused_and_the_model_goes_on(
    session: RawSession, inputs: list[pb.Tensor], message: str
) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    request = pb.ComputeRequest(model_id=model_id, inputs=inputs)
    code, detail = refused(lambda: session.call("Compute", request))
    assert (code, detail.cause) == ("INVALID_ARGUMENT", "invalid-input")
    assert message in detail.message
    assert not detail.model_lost
    assert session.compute(model_id, ONE).outputs[0].data == np.float32(2).tobytes()


def test_open_dimensions_are_checked_by_the_worker(session: RawSession) -> None:
    model_id = session.load(small.dynamic_batch(), relayed=True).model_id
    for dimensions, data in (
        ([-1, 4], b""),
        ([2**62, 4], b"1234"),
        ([2, 4], b"123"),
        ([2**63 - 1, 4], b""),
    ):
        request = pb.ComputeRequest(
            model_id=model_id, inputs=[tensor(dimensions=dimensions, data=data)]
        )
        code, detail = refused(partial(session.call, "Compute", request))
        assert (code, detail.cause) == ("INVALID_ARGUMENT", "invalid-input"), dimensions
    batch = np.ones((3, 4), np.float32)
    assert session.compute(model_id, batch).outputs[0].dimensions == [3, 4]


def test_signatures_outside_are_refused(session: RawSession) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    for signature in (2, 65536, 2**32 - 1):
        code, detail = refused(partial(session.compute, model_id, ONE, signature=signature))
        assert (code, detail.cause) == ("INVALID_ARGUMENT", "invalid-input")
        assert detail.message == f"there is no signature {signature}"


def test_a_direct_model_is_not_relayed(session: RawSession) -> None:
    model_id = session.load(MODEL).model_id
    for request in ("Compute", "Reset"):
        code, detail = refused(
            partial(session.call, request, type(UNARY[request])(model_id=model_id))
        )
        assert (code, detail.cause) == ("FAILED_PRECONDITION", "closed")


def test_a_closed_model_is_closed_to_whoever_asks(session: RawSession) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    for _ in range(2):
        session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))
    state = session.call("GetModel", pb.GetModelRequest(model_id=model_id))
    assert (state.lost, state.detail.cause) == (True, "closed")
    code, detail = refused(lambda: session.compute(model_id, ONE))
    assert (code, detail.cause) == ("FAILED_PRECONDITION", "closed")
    assert model_id not in session.models()


def test_a_deadline_that_passed_is_the_verdict(session: RawSession) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    request = pb.CloseModelRequest(model_id=model_id, deadline_passed=True)
    session.call("CloseModel", request)
    state = session.call("GetModel", pb.GetModelRequest(model_id=model_id))
    assert (state.detail.cause, state.detail.model_lost) == ("timeout", True)
    code, detail = refused(lambda: session.compute(model_id, ONE))
    assert (code, detail.cause) == ("FAILED_PRECONDITION", "lost")
    assert "deadline" in detail.message


def test_a_death_is_told_and_the_first_reason_stays(session: RawSession) -> None:
    reply = session.load(MODEL)
    os.kill(reply.isolation.worker_pid, 9)
    request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=float("inf"))
    state = session.call("GetModel", request)
    assert (state.lost, state.detail.cause) == (True, "killed")
    session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id, deadline_passed=True))
    assert session.call("GetModel", request).detail.cause == "killed"


def test_waiting_for_a_living_model_ends(session: RawSession) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    for seconds in (0, 0.01, -5, float("nan")):
        request = pb.GetModelRequest(model_id=model_id, wait_seconds=seconds)
        assert not session.call("GetModel", request).lost


def test_a_cancelled_waiter_takes_nothing_from_the_others(session: RawSession) -> None:
    reply = session.load(MODEL, relayed=True)
    request = pb.GetModelRequest(model_id=reply.model_id, wait_seconds=HANG_SECONDS)
    for _ in range(5):
        call = session.stub.GetModel.future(request, metadata=session.metadata)
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.02)
        call.cancel()
    close = session.stub.CloseModel.future(
        pb.CloseModelRequest(model_id=reply.model_id), metadata=session.metadata
    )
    close.cancel()
    session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
    assert session.call("GetModel", request).detail.cause == "closed"


def test_a_session_on_a_stream_hears_of_losses(
    service: Service, session: RawSession, bystander: Bystander
) -> None:
    events = session.stub.OpenSession(pb.OpenSessionRequest(protocol_version=1))
    opened = next(events).opened
    assert opened.origin == f"uid:{os.geteuid()}"
    session.metadata = (("model-loader-session", opened.token.hex()),)
    closed = session.load(MODEL, relayed=True)
    session.call("CloseModel", pb.CloseModelRequest(model_id=closed.model_id))
    lost = session.load(MODEL, relayed=True)
    os.kill(lost.isolation.worker_pid, 9)
    event = next(events).lost
    assert (event.model_id, event.detail.cause) == (lost.model_id, "killed")
    living = session.load(MODEL, relayed=True).isolation.worker_pid
    assert living in service.workers()
    events.cancel()
    service.wait_for_workers([bystander.pid])


def test_a_stream_of_another_version_is_refused(session: RawSession) -> None:
    events = session.stub.OpenSession(pb.OpenSessionRequest(protocol_version=2))
    code, detail = refused(lambda: next(events))
    assert (code, detail.cause) == ("UNIMPLEMENTED", "unsupported")


def test_listening_sessions_are_told_that_the_service_ends() -> None:
    with Service() as service:
        with RawSession(service.directory) as session:
            events = session.stub.OpenSession(pb.OpenSessionRequest(protocol_version=1))
            assert next(events).opened.token
            ended: list[tuple[str, pb.ErrorDetail]] = []
            listener = threading.Thread(target=lambda: ended.append(refused(lambda: next(events))))
            listener.start()
            assert service.close() == 0
            listener.join(HANG_SECONDS)
        ((code, detail),) = ended
        assert (code, detail.cause) == ("UNAVAILABLE", "unavailable")


class Recorder:
    """A gRPC context that remembers how a call was ended."""

    def __init__(self) -> None:
        self.ended: tuple[grpc.StatusCode, str, Any] | None = None

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any) -> None:
        """End the call."""
        self.ended = (code, details, metadata)
        raise grpc.aio.AbortError


class Telling:
    """What has the method, and is told of refusals."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Failure]] = []

    def refused(self, method: str, failure: Failure) -> None:
        """Keep what is told."""
        self.told.append((method, failure))


def edge(error: BaseException, telling: Telling | None = None) -> Recorder:
    """Let a call fail with `error` at the edge."""

    async def fail(self: object, request: object, context: object) -> None:
        raise error

    recorder = Recorder()
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(_call(broker_edge.edge(fail), telling or Telling(), recorder))
    return recorder


async def _call(method: Any, telling: Telling, recorder: Recorder) -> None:
    await method(telling, None, cast(Any, recorder))


def test_a_refusal_is_told_unless_an_event_has_told_of_it() -> None:
    telling = Telling()
    refusal = Refusal(Failure(Cause.CRASHED, "it crashed"))
    edge(refusal, telling)
    assert telling.told == [("fail", refusal.failure)]
    refusal.told = True
    edge(refusal, telling)
    assert len(telling.told) == 1


def test_what_nobody_foresaw_is_an_internal_error_without_a_trace_for_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = edge(KeyError("/secret/path"))
    assert recorder.ended is not None
    code, details, ((key, value),) = recorder.ended
    detail = pb.ErrorDetail.FromString(value)
    assert (code.name, key, detail.cause) == ("INTERNAL", "model-loader-error-bin", "internal")
    assert "KeyError" in detail.message
    assert "/secret" not in details + detail.message
    assert "/secret/path" in caplog.text


def test_a_service_without_descriptors_says_what_to_do() -> None:
    recorder = edge(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert recorder.ended is not None
    code, details, _ = recorder.ended
    assert code.name == "UNAVAILABLE"
    assert "ulimit -n" in details


@pytest.mark.parametrize("character", ["x", "\n", "\N{SNOWMAN}", "\N{GRINNING FACE}", "\ud800"])
def test_a_failures_texts_fit_into_the_metadata(character: str) -> None:
    failure = Failure(Cause.CRASHED, character * 4096, "limit", 1, 2, character * 4095 + "!")
    recorder = edge(Refusal(failure))
    assert recorder.ended is not None
    _, details, ((_, value),) = recorder.ended
    # As gRPC counts: base64, and percent-encoding of what is not ASCII.
    assert len(value) * 4 / 3 + len(details.encode()) * 3 < 8000
    detail = pb.ErrorDetail.FromString(value)
    assert detail.message
    assert detail.last_words.endswith("!")
    assert (detail.cause, detail.limit, detail.value, detail.maximum) == ("crashed", "limit", 1, 2)


def test_many_calls_at_a_time_are_limited() -> None:
    with Service(calls_at_a_time=4) as service, RawSession(service.directory) as session:
        model_id = session.load(MODEL, relayed=True).model_id
        waiting = [
            session.stub.GetModel.future(
                pb.GetModelRequest(model_id=model_id, wait_seconds=HANG_SECONDS),
                metadata=session.metadata,
            )
            for _ in range(8)
        ]
        assert not wait_until_empty(
            lambda: [0] * (4 - sum(call.done() for call in waiting)), HANG_SECONDS
        )
        refused_calls = [call for call in waiting if call.done()]
        assert {call.code() for call in refused_calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused_calls) == 4
        for call in refused_calls:
            detail = detail_of(call.exception())
            assert (detail.cause, detail.limit) == ("limit", "calls_at_a_time")
            assert (detail.value, detail.maximum) == (5, 4)
        for call in waiting:
            call.cancel()


def test_the_list_says_what_each_model_is(session: RawSession, bystander: Bystander) -> None:
    reply = session.load(MODEL, label="a\x1b[2Jname" + "x" * 1000)
    with session.channel(reply.model_id) as channel:
        exchange_over(channel, [ONE])
    rows = {row.model_id: row for row in session.call("ListModels", pb.ListModelsRequest()).models}
    row = rows[bystander.model_id]
    assert (row.origin, row.worker_pid) == ("bystander", bystander.pid)
    assert row.memory_bytes > 0
    assert row.runtime
    if reply.model_id in rows:  # its worker ends with its channel
        assert rows[reply.model_id].label.startswith("a\\x1b[2Jname")
        assert len(rows[reply.model_id].label) < 300


def test_messages_of_the_test_are_sound(session: RawSession) -> None:
    model_id = session.load(MODEL, relayed=True).model_id
    assert message_of(ONE) == tensor()
    (output,) = session.compute(model_id, ONE).outputs
    assert (output.data_type, list(output.dimensions)) == (6, [1])
