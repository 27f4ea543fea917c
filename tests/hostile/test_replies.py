"""Whatever a worker sends: a typed error, the model lost, and nobody else notices.

The fixtures see to the rest after each test: the neighbour answers and no other process is left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

import model_loader as ml
from loader_service.sandbox.layers import Layer
from loader_service.worker.control import HEAD, Message, pack, pack_fields
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import Entry, Kind, pack_header, pack_table
from tests.hostile.probes import Probe, ProbeService, all_but
from tests.support.waiting import wait_until

CONTROL, CHANNEL = 3, 4
CALL = 2
"""The sequence number of a probe's second call."""
VIOLATION = (ml.OperationError, "protocol-violation")


@pytest.fixture(scope="module")
def lone_service() -> Iterator[ProbeService]:
    """Short computations, so that silence ends soon."""
    with ProbeService(limits={"compute_seconds": 1, "output_bytes": 1 << 20}) as service:
        yield service


@pytest.fixture(params=["direct", "relayed"])
def probe(service: ProbeService, request: pytest.FixtureRequest) -> Iterator[Probe]:
    """A worker on each road that has answered its first call well."""
    with service.probe(relay=request.param == "relayed") as probe:
        assert probe.works()
        yield probe


@pytest.fixture
def direct_probe(service: ProbeService) -> Iterator[Probe]:
    """A worker on the direct road: to its broker both are the same."""
    with service.probe() as probe:
        assert probe.works()
        yield probe


def answer(
    sequence: int = CALL,
    *,
    kind: Kind = Kind.ANSWER,
    tensors: tuple[Entry, ...] = (Entry(DataType.UINT8, (4,), 4),),
    table: bytes | None = None,
    count: int | None = None,
    length: int | None = None,
    payload: bytes = b"null",
    signature: int = 0,
) -> bytes:
    """Build a frame, true or not."""
    table = pack_table(tensors) if table is None else table
    head = pack_header(
        kind,
        sequence,
        signature=signature,
        payload_length=len(payload) if length is None else length,
        table_length=len(table),
        tensors=len(tensors) if count is None else count,
    )
    return head + table + payload


def one(data_type: DataType, dimensions: tuple[int, ...], length: int) -> tuple[Entry, ...]:
    """A table of one tensor."""
    return (Entry(data_type, dimensions, length),)


ANSWERS = {
    "bytes that are no frame": b"HTTP/1.1 200 OK\r\n\r\n" * 10,
    "zeros": bytes(4096),
    "the number of an earlier call": answer(CALL - 1),
    "the number of a later call": answer(CALL + 1),
    "the largest number": answer(2**64 - 1),
    "an unknown kind": answer().replace(b"MLC1\x81", b"MLC1\x99"),
    "a request": answer(kind=Kind.COMPUTE),
    "done, for a computation": answer(kind=Kind.DONE, tensors=(), payload=b""),
    "no tensor": answer(tensors=(), payload=b""),
    "two tensors": answer(tensors=one(DataType.UINT8, (2,), 2) * 2),
    "another type": answer(tensors=one(DataType.INT8, (4,), 4)),
    "another rank": answer(tensors=one(DataType.UINT8, (2, 2), 4)),
    "lengths that do not add up": answer(length=5),
    "bytes that do not fit the dimensions": answer(tensors=one(DataType.UINT8, (5,), 4)),
    "a negative dimension": answer(tensors=one(DataType.UINT8, (-4,), 4)),
    "more than the limit": answer(
        tensors=one(DataType.UINT8, (2 << 20,), 2 << 20), length=2 << 20, payload=b"x" * 4096
    ),
    "as much as a header can say": answer(length=2**64 - 1),
    "as much as a dimension can say": answer(
        tensors=one(DataType.UINT8, (2**62,), 2**62), length=2**62
    ),
    "a table that is too long": answer(table=bytes((1 << 20) + 8)),
    "more tensors than the table holds": answer(count=65535),
    "a failure that cannot be read": answer(kind=Kind.FAILURE, tensors=(), payload=b"\xff{"),
    "a failure of another's making": answer(
        kind=Kind.FAILURE,
        tensors=(),
        payload=json.dumps(
            {"cause": "forbidden", "message": "", "limit": "", "value": 0, "maximum": 0}
        ).encode(),
    ),
    "a failure without end": answer(kind=Kind.FAILURE, tensors=(), length=1 << 40, payload=b"{"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_client_gets_a_typed_error_for(probe: Probe, name: str) -> None:
    assert probe.loss("replies.on_channel", data=ANSWERS[name].hex()) == VIOLATION


WHOLE = answer()


@pytest.mark.parametrize("length", [0, 20, len(WHOLE) - 1])
def test_a_part_of_an_answer_and_then_nothing(probe: Probe, length: int) -> None:
    loss = probe.loss("replies.on_channel", data=WHOLE[:length].hex())
    assert loss == (ml.TimeoutError, "timeout")


@pytest.mark.parametrize("length", [0, 1, 20, len(WHOLE) - 5, len(WHOLE) - 1])
def test_a_part_of_an_answer_and_then_the_end(probe: Probe, length: int) -> None:
    error = probe.error("replies.on_channel", data=WHOLE[:length].hex(), end=True)
    assert isinstance(error, ml.OperationError | ml.InvalidStateError), repr(error)
    assert probe.model.lost is not None


def test_an_answer_without_end(probe: Probe) -> None:
    first = answer(tensors=one(DataType.UINT8, (1 << 20,), 1 << 20), length=1 << 20, payload=b"")
    # Exactly what it announced is taken; what follows is no answer to the next call.
    with suppress(ml.ModelLoaderError, ValueError):
        probe.ask("replies.flood", descriptor=CHANNEL, first=first.hex(), data="20")
    assert isinstance(probe.error("inside.threads"), ml.ModelLoaderError)
    assert probe.model.lost is not None


def test_two_answers_to_one_call_lose_the_model(probe: Probe) -> None:
    try:
        assert probe.ask("replies.on_channel", data=(WHOLE + answer()).hex()) is None
    except ml.OperationError:
        assert probe.model.lost is not None
        return
    error = probe.error("inside.threads")
    assert isinstance(error, ml.OperationError | ml.InvalidStateError | ml.TimeoutError)
    assert probe.model.lost is not None


def test_a_true_answer_by_a_forger_is_an_answer(probe: Probe) -> None:
    """The worker is the model: nothing but what it may say at all is promised."""
    assert probe.ask("replies.on_channel", data=WHOLE.hex()) is None


MESSAGES = {
    "bytes that are no message": b"\xff" * 64,
    "an unknown kind": HEAD.pack(0, 99),
    "a kind for workers": pack(Message.MODEL, b"x"),
    "a length beyond all": HEAD.pack(0xFFFF_FFFF, Message.LOADED),
    "a pong that nobody asked for": pack(Message.PONG, bytes(16)),
    "a pong of the wrong size": pack(Message.PONG, b"x"),
    "no object": pack(Message.LOADED, b"[]"),
    "an object without a bottom": pack(Message.LOADED, b"[" * 100_000),
    "too many messages": pack_fields(Message.LOADED, {}) * 100,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_broker_ends_a_serving_worker_that_sends_it(direct_probe: Probe, name: str) -> None:
    assert direct_probe.loss("replies.on_control", data=MESSAGES[name].hex()) == VIOLATION


@pytest.mark.parametrize("name", sorted({*MESSAGES} - {"too many messages"}))
def test_the_broker_ends_a_loading_worker_that_sends_it(service: ProbeService, name: str) -> None:
    with pytest.raises(ml.OperationError, match=r"protocol|cannot be|unasked"):
        service.probe("replies.on_control", data=MESSAGES[name].hex())


def test_messages_without_end_end_the_worker(direct_probe: Probe) -> None:
    pong = pack(Message.PONG, bytes(16)).hex()
    assert direct_probe.loss("replies.flood", descriptor=CONTROL, first="", data=pong) == VIOLATION


def test_half_a_message_to_the_broker_is_waited_for_no_longer_than_a_computation(
    direct_probe: Probe,
) -> None:
    loss = direct_probe.loss("replies.on_control", data=pack(Message.LOADED, b"{}")[:-1].hex())
    assert loss == (ml.TimeoutError, "timeout")


def test_a_worker_that_closes_its_control_socket_is_ended(direct_probe: Probe) -> None:
    assert direct_probe.loss("replies.close_socket", descriptor=CONTROL) == VIOLATION


def test_a_worker_that_closes_its_channel_is_ended(probe: Probe) -> None:
    error = probe.error("replies.close_socket", descriptor=CHANNEL)
    assert isinstance(error, ml.OperationError | ml.InvalidStateError), repr(error)
    assert probe.model.lost is not None


@pytest.mark.parametrize("over", [CONTROL, CHANNEL], ids=["control", "channel"])
def test_a_worker_that_sends_a_descriptor_is_ended_by_its_sandbox(probe: Probe, over: int) -> None:
    loss = probe.loss("replies.send_descriptor", over=over, what=CONTROL)
    assert loss == (ml.SecurityError, "policy-violation")


@pytest.mark.parametrize("over", [CONTROL, CHANNEL], ids=["control", "channel"])
def test_descriptors_that_nobody_asked_for_are_not_taken(over: int) -> None:
    """Without the filter they can be sent, and are dropped by the kernel on their way."""
    with (
        ProbeService(all_but(Layer.SECCOMP), limits={"compute_seconds": 1}) as service,
        service.probe() as probe,
    ):
        assert probe.works()
        ours, brokers = _descriptors(os.getpid()), _descriptors(service.pid)
        assert probe.loss("replies.send_descriptor", over=over, what=2) == VIOLATION
        # What gRPC opens for a moment in either process is none that was sent.
        wait_until(lambda: _descriptors(os.getpid()) <= ours, "no descriptor more here")
        service.wait_for_workers([])
        wait_until(lambda: _descriptors(service.pid) <= brokers, "no descriptor more in the broker")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
