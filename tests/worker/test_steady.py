"""The worker's steady path: taken by what repeats, and never a byte lost to what does not."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.engine import OutputTensor
from loader_service.runtime.failures import ModelFailed
from loader_service.runtime.runtimes import installed_runtimes
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.worker.serving import Serving, prepare_channel
from loader_service.writer import small
from loader_service.writer.layers import arithmetic
from loader_service.writer.model import ModelWriter
from model_loader_wire import polling
from model_loader_wire.causes import Cause
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    ModelDescription,
    SignatureDescription,
    TensorDescription,
)
from model_loader_wire.frames import (
    HEADER,
    Entry,
    Kind,
    pack_header,
    pack_table,
    unpack_failure,
    unpack_header,
)
from tests.support.raw_client import HANG_SECONDS, exchange_over
from tests.worker.test_serving import GO

Array = np.ndarray[Any, Any]

SMALL = 5
LARGE = 100_000
OPEN = TensorDescription("open", DataType.INT32, (None,), None)
BIG = replace(GO, tensor_bytes=1 << 24, output_bytes=1 << 24)


class Model:
    """Adds one to a vector of any length; signature 1 takes one away."""

    description = ModelDescription(
        (
            SignatureDescription("", (OPEN,), (OPEN,)),
            SignatureDescription("less", (OPEN,), (OPEN,)),
        ),
        "none",
        "none",
    )

    def __init__(self) -> None:
        self.carefully = 0
        self.steadily = 0
        self.steadies = 0
        self.resets = 0
        self.fails: Exception | None = None
        self.shortens = False
        self.values = np.zeros(0, np.int32)
        self.answer = np.zeros(0, np.int32)

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Memory for the vector."""
        if self.values.shape != shapes[0]:
            self.values = np.zeros(shapes[0], np.int32)
        return [self.values.data.cast("B")]

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """There are none."""
        raise NotImplementedError

    def invoke(self, signature: int) -> None:
        """Run on the careful path."""
        self.carefully += 1
        self.answer = self.values + (1, -1)[signature]

    def outputs(self, signature: int) -> list[OutputTensor]:
        """The vector."""
        return [OutputTensor(DataType.INT32, self.answer.shape, self.answer.data.cast("B"))]

    def steady(self, signature: int) -> Steady:
        """Every signature can be repeated."""
        self.steadies += 1
        return Steady(self, signature)

    def reset(self) -> None:
        """Count."""
        self.resets += 1


class Steady:
    """One signature of the model with the length that it has now."""

    def __init__(self, model: Model, signature: int) -> None:
        self.model = model
        self.signature = signature
        self.shape = model.values.shape

    def inputs(self) -> list[Array]:
        """The vector's memory."""
        assert self.model.values.shape == self.shape
        return [self.model.values]

    def run(self) -> None:
        """Run on the steady path."""
        model = self.model
        if model.fails is not None:
            error, model.fails = model.fails, None
            raise error
        model.steadily += 1
        model.answer = model.values + (1, -1)[self.signature]
        if model.shortens:
            model.answer = model.answer[:-1]

    def outputs(self) -> list[Array] | None:
        """The result, unless its length is another."""
        return [self.model.answer] if self.model.answer.shape == self.shape else None


class Worker:
    """The loop in a thread, and the other ends of its sockets."""

    def __init__(self) -> None:
        self.model = Model()
        self.channel, self._theirs = socket.socketpair()
        self.control, self._control = socket.socketpair()
        self.channel.settimeout(HANG_SECONDS)
        prepare_channel(self._theirs)
        serving = Serving(self.model, self._theirs, self._control, BIG)
        self.thread = threading.Thread(target=serving.run, daemon=True)
        self.thread.start()

    def ask(self, sequence: int, values: Array, signature: int = 0) -> None:
        """Send a request and demand its answer."""
        self.channel.sendall(request(sequence, values, signature))
        self.expect(sequence, values, signature)

    def expect(self, sequence: int, values: Array, signature: int = 0) -> None:
        """Demand the answer to a request."""
        header = unpack_header(self.read(HEADER.size))
        assert (header.kind, header.sequence, header.signature) == (
            Kind.ANSWER,
            sequence,
            signature,
        )
        self.read(header.table_length)
        got = np.frombuffer(self.read(header.payload_length), np.int32)
        assert (got == values + (1, -1)[signature]).all()

    def read(self, count: int) -> bytes:
        """Receive so many bytes."""
        data = bytearray()
        while len(data) < count:
            piece = self.channel.recv(count - len(data))
            assert piece, "the channel ended"
            data += piece
        return bytes(data)

    def become_steady(self, elements: int) -> None:
        """Ask until the steady path is taken."""
        for sequence in range(3):
            self.ask(sequence, np.arange(elements, dtype=np.int32))
        assert self.model.steadily > 0

    def close(self) -> None:
        """End it."""
        self.channel.close()
        self.thread.join(HANG_SECONDS)
        assert not self.thread.is_alive()
        for end in (self.control, self._theirs, self._control):
            end.close()


def request(sequence: int, values: Array, signature: int = 0) -> bytes:
    """A computation as bytes."""
    table = pack_table([Entry(DataType.INT32, values.shape, values.nbytes)])
    head = pack_header(
        Kind.COMPUTE,
        sequence,
        signature=signature,
        payload_length=values.nbytes,
        table_length=len(table),
        tensors=1,
    )
    return head + table + values.tobytes()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker's loop; at the end it must have ended by the end of its channel."""
    made = Worker()
    yield made
    made.close()


@pytest.mark.parametrize("elements", [SMALL, LARGE])
def test_from_the_third_like_request_on_the_path_is_steady(worker: Worker, elements: int) -> None:
    for sequence in range(20):
        worker.ask(sequence, np.full(elements, sequence, np.int32))
    assert (worker.model.carefully, worker.model.steadily) == (2, 18)
    assert worker.model.steadies == 1


@pytest.mark.parametrize("elements", [SMALL, LARGE])
def test_another_request_is_served_with_care_and_whole(worker: Worker, elements: int) -> None:
    """Its bytes landed in the wrong place; it may be shorter, longer, or of another signature."""
    for other in (1, SMALL - 1, SMALL + 1, 30_000, LARGE - 1, LARGE + 1, 400_000):
        for signature in (0, 1):
            worker.become_steady(elements)
            before = worker.model.steadily
            worker.ask(77, np.arange(other, dtype=np.int32), signature)
            assert worker.model.steadily == before
            worker.ask(78, np.arange(elements, dtype=np.int32))
            assert worker.model.steadily == before


def test_a_reset_and_a_refusal_are_served_in_between(worker: Worker) -> None:
    worker.become_steady(LARGE)
    worker.channel.sendall(pack_header(Kind.RESET, 8))
    assert unpack_header(worker.read(HEADER.size))[:3] == (Kind.DONE, 0, 8)
    assert worker.model.resets == 1
    worker.become_steady(LARGE)
    wrong = bytearray(request(9, np.arange(LARGE, dtype=np.int32)))
    wrong[HEADER.size] = DataType.FLOAT32
    worker.channel.sendall(wrong)
    header = unpack_header(worker.read(HEADER.size))
    assert (header.kind, header.sequence) == (Kind.FAILURE, 9)
    assert "is int32, not float32" in unpack_failure(worker.read(header.payload_length)).message
    worker.become_steady(SMALL)


def test_more_inputs_than_one_system_call_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    one = TensorDescription("one", DataType.INT32, (1,), 4)
    many = 1500
    signature = SignatureDescription("", (one,) * many, (one,))
    monkeypatch.setattr(Model, "description", ModelDescription((signature,), "none", "none"))

    def prepare_inputs(self: Model, *_: object) -> list[memoryview]:
        self.values = np.zeros(many, np.int32)
        return [self.values[place : place + 1].data.cast("B") for place in range(many)]

    def outputs(self: Model, signature: int) -> list[OutputTensor]:
        return [OutputTensor(DataType.INT32, (1,), self.answer[-1:].data.cast("B"))]

    def inputs(self: Steady) -> list[Array]:
        return [self.model.values[place : place + 1] for place in range(many)]

    monkeypatch.setattr(Model, "prepare_inputs", prepare_inputs)
    monkeypatch.setattr(Model, "outputs", outputs)
    monkeypatch.setattr(Steady, "inputs", inputs)
    worker = Worker()
    table = pack_table([Entry(DataType.INT32, (1,), 4)] * many)
    head = pack_header(
        Kind.COMPUTE, 4, payload_length=4 * many, table_length=len(table), tensors=many
    )
    for _ in range(4):
        worker.channel.sendall(head + table + np.arange(many, dtype=np.int32).tobytes())
        header = unpack_header(worker.read(HEADER.size))
        assert header.kind is Kind.ANSWER
        worker.read(header.table_length)
        assert np.frombuffer(worker.read(4), np.int32) == [many]
    worker.close()


def test_what_is_no_frame_ends_the_worker(worker: Worker) -> None:
    worker.become_steady(SMALL)
    worker.channel.sendall(bytes(200))
    worker.thread.join(HANG_SECONDS)
    assert not worker.thread.is_alive()


def test_a_request_may_come_in_any_two_pieces(worker: Worker) -> None:
    worker.become_steady(SMALL)
    values = np.arange(SMALL, dtype=np.int32)
    whole = request(5, values)
    for cut in range(1, len(whole)):
        worker.channel.sendall(whole[:cut])
        worker.channel.sendall(whole[cut:])
        worker.expect(5, values)
    assert worker.model.steadily > SMALL * 4


def test_pipelined_requests_of_all_kinds_are_answered_in_order(worker: Worker) -> None:
    chance = random.Random(3)
    asked = []
    length = SMALL
    for sequence in range(1000):
        if chance.random() < 0.1:
            length = chance.choice((SMALL, SMALL, 7, 3000, 30_000))
        signature = int(chance.random() < 0.05)
        asked.append((sequence, np.full(length, sequence, np.int32), signature))

    def send() -> None:
        left = memoryview(b"".join(request(*one) for one in asked))
        while left:
            count = chance.choice((1, 50, 1000, 100_000, 1_000_000))
            worker.channel.sendall(left[:count])
            left = left[count:]

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for one in asked:
        worker.expect(*one)
    sender.join(HANG_SECONDS)
    assert worker.model.steadily > 0
    assert worker.model.carefully > 0


def test_a_failed_run_is_told_and_the_next_begins_in_its_place(worker: Worker) -> None:
    worker.become_steady(LARGE)
    worker.model.fails = ModelFailed("not today")
    worker.channel.sendall(request(6, np.arange(LARGE, dtype=np.int32)))
    header = unpack_header(worker.read(HEADER.size))
    assert (header.kind, header.sequence) == (Kind.FAILURE, 6)
    failure = unpack_failure(worker.read(header.payload_length))
    assert (failure.cause, failure.message) == (Cause.FAILED, "not today")
    carefully = worker.model.carefully
    worker.ask(7, np.arange(LARGE, dtype=np.int32))
    assert worker.model.carefully == carefully + 1


def test_an_answer_of_another_shape_is_told_as_it_is(worker: Worker) -> None:
    worker.become_steady(LARGE)
    worker.model.shortens = True
    worker.channel.sendall(request(6, np.arange(LARGE, dtype=np.int32)))
    header = unpack_header(worker.read(HEADER.size))
    assert (header.kind, header.payload_length) == (Kind.ANSWER, 4 * (LARGE - 1))
    table = pack_table([Entry(DataType.INT32, (LARGE - 1,), 4 * (LARGE - 1))])
    assert worker.read(header.table_length) == table
    answer = np.frombuffer(worker.read(header.payload_length), np.int32)
    assert (answer == np.arange(1, LARGE)).all()


def test_tensors_are_read_and_written_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interpreter: the system calls get the addresses of its own tensors."""
    # A request that is there when the worker looks is not read by readv.
    monkeypatch.setattr(polling, "LONGEST_NS", 0)
    elements = 20_000
    model = installed_runtimes()[0].load(
        small.double(TensorType.FLOAT32, (elements,)), threads=1, memory_bytes=None
    )
    places: dict[str, set[int]] = {"readv": set(), "writev": set()}
    for name in places:
        usual = getattr(os, name)

        def watched(descriptor: int, parts: list[Any], name: str = name, usual: Any = usual) -> int:
            places[name].add(np.frombuffer(parts[1], np.uint8).ctypes.data)
            moved: int = usual(descriptor, parts)
            return moved

        monkeypatch.setattr(os, name, watched)
    ours, theirs = socket.socketpair()
    control, their_control = socket.socketpair()
    prepare_channel(theirs)
    serving = Serving(model, theirs, their_control, BIG)
    thread = threading.Thread(target=serving.run, daemon=True)
    thread.start()
    x = np.arange(elements, dtype=np.float32)
    for round_ in range(6):
        if round_ == 5:
            places["writev"].clear()
        assert bytes(exchange_over(ours, [x]).tensors[0]) == (2 * x).tobytes()
    steady = model.steady(0)
    assert steady is not None
    outputs = steady.outputs()
    assert outputs is not None
    assert places["readv"] == {steady.inputs()[0].ctypes.data}
    assert places["writev"] == {outputs[0].ctypes.data}
    ours.close()
    thread.join(HANG_SECONDS)
    for end in (control, theirs, their_control):
        end.close()


def test_a_signature_that_shares_but_some_inputs_keeps_the_others_from_the_path() -> None:
    """It computes with what the last call left in the rest, where no other request may be read."""
    writer = ModelWriter()
    graph = writer.subgraph()
    a, b = (graph.input(name, TensorType.FLOAT32, (2,)) for name in "ab")
    total = arithmetic(graph, BuiltinOperator.ADD, a, b, "total")
    graph.output(total)
    writer.signature("part", graph, {"a": a}, {"total": total})
    model = installed_runtimes()[0].load(writer.write(), threads=1, memory_bytes=None)
    for signature, shapes in ((0, [(2,), (2,)]), (1, [(2,)])):
        for view in model.prepare_inputs(signature, shapes):
            assert view is not None
            view[:] = np.full(2, 10, np.float32).tobytes()
        model.invoke(signature)
    assert np.frombuffer(model.outputs(1)[0].data, np.float32).tolist() == [20, 20]
    assert model.steady(0) is None
    assert model.steady(1) is not None
