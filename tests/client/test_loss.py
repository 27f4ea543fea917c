"""Loss: every way in which a worker ends badly becomes one named error, and is remembered."""

from __future__ import annotations

import builtins
import gc
import json
import socket
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.causes import TABLE, Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import HEADER, Entry, Kind, pack_header
from model_loader_wire.limits import Limits
from tests.client import workers
from tests.client.conftest import Load, put
from tests.client.fake_service import FakeService, echoing, tensor

X = np.ones((2, 3), np.float32)
ENTRY = Entry(DataType.FLOAT32, (2, 3), 24)


def close_requests(service: FakeService) -> list[Any]:
    """Return the CloseModel requests that came."""
    return [request for method, request in service.calls if method == "CloseModel"]


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (Failure(Cause.CRASHED, "signal 11", last_words="assert failed"), ml.OperationError),
        (Failure(Cause.KILLED, "by the operator"), ml.OperationError),
        (Failure(Cause.POLICY_VIOLATION, "it called socket"), ml.SecurityError),
        (Failure(Cause.TIMEOUT, "10 s passed"), ml.TimeoutError),
        (
            Failure(Cause.OUT_OF_MEMORY, "memory", "memory_bytes", 2e9, 1 << 30),
            ml.QuotaExceededError,
        ),
        (Failure(Cause.CPU_TIME, "60 s", "cpu_seconds", 61, 60), ml.QuotaExceededError),
    ],
    ids=lambda value: getattr(value, "cause", ""),
)
def test_end_in_a_call_gives_the_verdict(
    load: Load, verdict: Failure, error: type[ml.ModelLoaderError]
) -> None:
    model = load(None, workers.end, verdict=verdict)
    with pytest.raises(error) as caught:
        model.compute(X)
    assert caught.value.cause is verdict.cause
    assert str(caught.value).startswith(verdict.message)
    assert verdict.last_words in str(caught.value)
    assert caught.value.last_words == verdict.last_words
    if isinstance(caught.value, ml.QuotaExceededError):
        facts = (caught.value.limit, caught.value.value, caught.value.maximum)
        assert facts == (verdict.limit, verdict.value, verdict.maximum)
    assert model.lost == ml.Lost(verdict.cause, verdict.message)
    with pytest.raises(ml.InvalidStateError, match=f"{verdict.cause}.*{verdict.message}") as later:
        model.compute(X)
    assert later.value.cause is Cause.LOST
    with pytest.raises(ml.InvalidStateError):
        model.reset()
    model.close()


def test_end_of_an_idle_worker_is_noticed(service: FakeService, load: Load) -> None:
    model, other = load(), load()
    assert model.lost is None
    service.kill("model-0", Failure(Cause.KILLED, "by hand"))
    assert model.lost == ml.Lost(Cause.KILLED, "by hand")
    assert other.lost is None
    np.testing.assert_array_equal(other.compute(X), X)


def test_call_after_the_end_of_an_idle_worker_gives_the_verdict(
    service: FakeService, load: Load
) -> None:
    model = load()
    service.kill("model-0", Failure(Cause.OUT_OF_MEMORY, "too much", "memory_bytes", 2, 1))
    with pytest.raises(ml.QuotaExceededError, match="too much"):
        model.compute(X)


def test_end_of_the_service(service: FakeService, load: Load) -> None:
    model = load()
    service.stop_grpc()
    service.kill("model-0", Failure(Cause.KILLED, "nobody asks"))
    with pytest.raises(ml.NetworkError, match="does not answer"):
        model.compute(X)
    assert model.lost is not None
    assert model.lost.reason is Cause.UNAVAILABLE
    model.close()


def answers() -> dict[str, list[bytes]]:
    """Replies that a true worker would not send, to call 1 of the usual model."""
    good = workers.answer_bytes(1, [ENTRY], [bytes(24)])
    table = good[HEADER.size : -24]

    def with_entry(entry: Entry, length: int) -> bytes:
        return workers.answer_bytes(1, [entry], [bytes(length)])

    return {
        "no magic": [b"HTTP/1.1 200 OK\r\n".ljust(100)],
        "another call's answer": [workers.answer_bytes(2, [ENTRY], [bytes(24)])],
        "a request": [pack_header(Kind.COMPUTE, 1)],
        "done": [pack_header(Kind.DONE, 1)],
        "too many bytes": [good + b"!"],
        "another type": [with_entry(Entry(DataType.INT32, (2, 3), 24), 24)],
        "another shape": [with_entry(Entry(DataType.FLOAT32, (3, 2), 24), 24)],
        "another length": [with_entry(Entry(DataType.FLOAT32, (2, 2), 16), 16)],
        "no output": [workers.answer_bytes(1, [], [])],
        "two outputs": [workers.answer_bytes(1, [ENTRY, ENTRY], [bytes(24)] * 2)],
        "a length above the limit": [
            pack_header(Kind.ANSWER, 1, payload_length=2**62, table_length=len(table), tensors=1)
            + table
        ],
        "a long table": [pack_header(Kind.ANSWER, 1, table_length=2**31, tensors=1)],
        "more tensors than the table": [pack_header(Kind.ANSWER, 1, table_length=16, tensors=9)],
        "a failure that is no JSON": [pack_header(Kind.FAILURE, 1, payload_length=3) + b"{{{"],
        "a failure that goes on": [pack_header(Kind.FAILURE, 1, payload_length=2**30)],
        "a failure of the judge's": [workers.failure_bytes(1, Failure(Cause.TIMEOUT, "no"))],
        "a failure of another's": [workers.failure_bytes(1, Failure(Cause.FORBIDDEN, "no"))],
    }


@pytest.mark.parametrize("name", answers())
def test_reply_that_breaks_the_protocol(service: FakeService, load: Load, name: str) -> None:
    model = load(None, workers.say(*answers()[name]))
    with pytest.raises(ml.OperationError, match="broke the protocol") as caught:
        model.compute(X)
    assert caught.value.cause is Cause.PROTOCOL_VIOLATION
    assert model.lost is not None
    assert model.lost.reason is Cause.PROTOCOL_VIOLATION
    assert len(close_requests(service)) == 1
    with pytest.raises(ml.InvalidStateError):
        model.compute(X)


def test_strings_that_lie(load: Load) -> None:
    def lie(channel: socket.socket, frame: workers.Frame) -> None:
        data = b"\xff\xff\xff\x7f" + bytes(20)
        entry = Entry(DataType.STRING, (2**40,), len(data))
        channel.sendall(workers.answer_bytes(frame.header.sequence, [entry], [data]))

    model = load(echoing(tensor("s", DataType.STRING, None)), lie)
    with pytest.raises(ml.OperationError, match="broke the protocol"):
        model.compute("x")


def test_relayed_answer_that_lies(service: FakeService) -> None:
    def lie(channel: socket.socket, frame: workers.Frame) -> None:
        entry = Entry(DataType.INT32, (2, 3), 24)
        channel.sendall(workers.answer_bytes(frame.header.sequence, [entry], [bytes(24)]))

    with (
        ml.connect(service.directory, relay=True) as connection,
        ml.create_context(connection=connection) as context,
    ):
        model = ml.MLModelLoader(context).load(put(service, None, lie))
        with pytest.raises(ml.OperationError, match="came as int32, declared was float32"):
            model.compute(X)
        assert model.lost is not None


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (Cause.FAILED, ml.OperationError),
        (Cause.INVALID_INPUT, ml.DataError),
        (Cause.UNSUPPORTED, ml.NotSupportedError),
        (Cause.LIMIT, ml.QuotaExceededError),
        (Cause.INTERNAL, ml.UnknownError),
    ],
)
def test_failure_leaves_the_model_usable(
    service: FakeService,
    road: ml.Connection,
    cause: Cause,
    error: type[ml.ModelLoaderError],
) -> None:
    def fail_once(channel: socket.socket, frame: workers.Frame) -> None:
        first = frame.header.sequence == 1
        (workers.fail(cause, "\x1b[2Jno") if first else workers.echo)(channel, frame)

    model = ml.MLModelLoader(ml.create_context(connection=road)).load(put(service, None, fail_once))
    with pytest.raises(error) as caught:
        model.compute(X)
    assert str(caught.value) == "\\x1b[2Jno"
    assert TABLE[caught.value.cause].error == error.__name__
    assert model.lost is None
    np.testing.assert_array_equal(model.compute(X), X)


def test_relayed_crash(service: FakeService) -> None:
    with (
        ml.connect(service.directory, relay=True) as connection,
        ml.create_context(connection=connection) as context,
    ):
        verdict = Failure(Cause.CRASHED, "signal 6", last_words="abort()")
        model = ml.MLModelLoader(context).load(put(service, None, workers.end, verdict=verdict))
        with pytest.raises(ml.OperationError, match=r"signal 6\n.*last words.*\nabort\(\)"):
            model.compute(X)
        assert model.lost == ml.Lost(Cause.CRASHED, "signal 6")


def test_timeout_ends_the_model(service: FakeService, road: ml.Connection) -> None:
    loader = ml.MLModelLoader(ml.create_context(connection=road))
    model = loader.load(put(service, None, workers.never))
    started = time.monotonic()
    with pytest.raises(ml.TimeoutError, match="deadline passed") as caught:
        model.compute(X, timeout=0.2)
    assert 0.15 < time.monotonic() - started < 20
    assert isinstance(caught.value, builtins.TimeoutError)
    assert [request.deadline_passed for request in close_requests(service)] == [True]
    assert model.lost is not None
    assert model.lost.reason is Cause.TIMEOUT
    with pytest.raises(ml.InvalidStateError, match="deadline"):
        model.compute(X)


def test_usual_timeout_is_the_limit(service: FakeService) -> None:
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection, limits=Limits(compute_seconds=0.2)) as context,
    ):
        model = ml.MLModelLoader(context).load(put(service, None, workers.never))
        with pytest.raises(ml.TimeoutError):
            model.compute(X)


def test_timeout_of_a_worker_that_does_not_read(load: Load) -> None:
    asked = threading.Event()

    def sleep(channel: socket.socket, frame: workers.Frame) -> None:
        asked.set()
        time.sleep(20)

    model = load(echoing(tensor("x", DataType.UINT8, (None,))), sleep)

    def hold() -> None:
        with pytest.raises(ml.InvalidStateError, match="closed during the call"):
            model.compute(np.zeros(1, np.uint8))

    thread = threading.Thread(target=hold)
    thread.start()
    assert asked.wait(20)
    with pytest.raises(ml.TimeoutError, match=r"another call.*still usable"):
        model.compute(np.zeros(1, np.uint8), timeout=0.1)
    assert model.lost is None
    model.close()
    thread.join(5)
    assert not thread.is_alive()


def test_timeout_while_sending(load: Load) -> None:
    def stop_reading(channel: socket.socket, frame: workers.Frame) -> None:
        workers.echo(channel, frame)
        time.sleep(20)

    model = load(echoing(tensor("x", DataType.UINT8, (None,))), stop_reading)
    model.compute(np.zeros(1, np.uint8))
    with pytest.raises(ml.TimeoutError):
        model.compute(np.zeros(50_000_000, np.uint8), timeout=0.2)
    assert model.lost is not None


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_timeouts_that_cannot_be(load: Load, timeout: Any) -> None:
    with pytest.raises(ml.ConstraintError):
        load().compute(X, timeout=timeout)


def test_endless_timeout(load: Load) -> None:
    np.testing.assert_array_equal(load().compute(X, timeout=float("inf")), X)


def test_close_is_final_and_idempotent(service: FakeService, road: ml.Connection) -> None:
    loader = ml.MLModelLoader(ml.create_context(connection=road))
    with loader.load(put(service)) as model:
        model.compute(X)
    model.close()
    assert len(close_requests(service)) == 1
    for call in (lambda: model.compute(X), model.reset):
        with pytest.raises(ml.InvalidStateError, match="closed"):
            call()
    assert model.lost is None
    assert "closed" in repr(model)


def test_closed_context_ends_its_models_only(
    service: FakeService, connection: ml.Connection
) -> None:
    one, other = (ml.create_context(connection=connection) for _ in range(2))
    loader = ml.MLModelLoader(one)
    mine, its = loader.load(put(service)), ml.MLModelLoader(other).load(put(service))
    loader.close()
    np.testing.assert_array_equal(mine.compute(X), X)
    with pytest.raises(ml.InvalidStateError, match="loader was closed"):
        loader.load(b"")
    one.close()
    one.close()
    with pytest.raises(ml.InvalidStateError, match="model was closed"):
        mine.compute(X)
    with pytest.raises(ml.InvalidStateError, match="context was closed"):
        ml.MLModelLoader(one)
    np.testing.assert_array_equal(its.compute(X), X)
    connection.close()
    with pytest.raises(ml.InvalidStateError, match="closed"):
        its.compute(X)
    with pytest.raises(ml.InvalidStateError):
        connection.formats()
    with pytest.raises(ml.InvalidStateError):
        ml.create_context(connection=connection)


def test_forgotten_model_ends_its_worker(service: FakeService, load: Load) -> None:
    model = load()
    core = weakref.ref(model._core)
    worker = service.loaded["model-0"].worker
    del model
    gc.collect()
    assert core() is None
    worker.join(5)
    assert not worker.is_alive()


def test_failure_report_is_plain_json() -> None:
    reply = workers.failure_bytes(1, Failure(Cause.FAILED, "x"))
    assert json.loads(reply[HEADER.size :])["cause"] == "failed"


def test_one_model_from_many_threads(load: Load) -> None:
    model = load(echoing(tensor("x", DataType.INT64, (3,))))
    wrong = []

    def use(number: int) -> None:
        for turn in range(100):
            x = np.full(3, number * 1000 + turn)
            if not (model.compute(x) == x).all():
                wrong.append(x)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert model._core._sequence == 800
