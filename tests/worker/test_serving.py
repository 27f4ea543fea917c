"""The worker's loop, with a model that is no interpreter."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.engine import OutputTensor
from loader_service.runtime.failures import InvalidInput, LimitReached, ModelFailed
from loader_service.worker import serving
from loader_service.worker.control import FINISH_PAYLOAD, HEAD, PONG, Message, pack
from loader_service.worker.orders import Go, Task
from loader_service.worker.serving import Serving, prepare_channel
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    ModelDescription,
    SignatureDescription,
    TensorDescription,
)
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import (
    Entry,
    Kind,
    pack_header,
    pack_table,
    unpack_failure,
    unpack_header,
)
from model_loader_wire.strings import pack_strings, unpack_strings
from tests.support.raw_client import HANG_SECONDS, drive

X = TensorDescription("x", DataType.UINT8, (4,), 4)
OPEN = TensorDescription("open", DataType.FLOAT32, (None,), None)
TEXT = TensorDescription("text", DataType.STRING, (None,), None)
MANY = TensorDescription("many", DataType.UINT8, (1,), 1)
GO = Go(
    task=Task.LOAD,
    threads=1,
    data_bytes=None,
    memory_bytes=1000,
    cpu_seconds=None,
    tensor_bytes=1 << 20,
    output_bytes=1 << 20,
    model_size=0,
)


class Model:
    """Signature 0 reverses 4 bytes, 1 doubles floats, 2 reverses strings, 3 has many outputs."""

    description = ModelDescription(
        (
            SignatureDescription("", (X,), (X,)),
            SignatureDescription("open", (OPEN,), (OPEN,)),
            SignatureDescription("text", (TEXT, X), (TEXT,)),
            SignatureDescription("many", (), (MANY,) * 3000),
        ),
        "none",
        "none",
    )

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.resets = 0
        self.inputs: list[bytearray] = []
        self.strings: Sequence[bytes] = ()
        self.answer: bytes | None = None

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Memory for the inputs."""
        if signature == 1 and shapes[0][0] == 13:
            raise InvalidInput("13 brings no luck")
        sizes = {0: [4], 1: [4 * shapes[0][0] if shapes else 0], 2: [0, 4], 3: []}[signature]
        self.inputs = [bytearray(size) for size in sizes]
        views: list[memoryview | None] = [memoryview(place) for place in self.inputs]
        if signature == 2:
            views[0] = None
        return views

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """Take strings."""
        assert (signature, position, dimensions) == (2, 0, (len(values),))
        self.strings = values

    def invoke(self, signature: int) -> None:
        """Run."""
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    def outputs(self, signature: int) -> list[OutputTensor]:
        """The results."""
        if self.answer is not None:
            return [OutputTensor(DataType.UINT8, (4,), self.answer)]
        if signature == 0:
            return [OutputTensor(DataType.UINT8, (4,), memoryview(bytes(self.inputs[0][::-1])))]
        if signature == 1:
            values = np.frombuffer(self.inputs[0], np.float32) * 2
            return [OutputTensor(DataType.FLOAT32, values.shape, values.tobytes())]
        if signature == 2:
            data = pack_strings([value[::-1] for value in self.strings])
            return [OutputTensor(DataType.STRING, (len(self.strings),), data)]
        return [OutputTensor(DataType.UINT8, (1,), bytes([index % 251])) for index in range(3000)]

    def steady(self, signature: int) -> None:
        """No signature takes the steady path."""

    def reset(self) -> None:
        """Count."""
        self.resets += 1


class Worker:
    """The loop in a thread, and the other ends of its sockets."""

    def __init__(self) -> None:
        self.model = Model()
        self.channel, theirs = socket.socketpair()
        self.control, control = socket.socketpair()
        for end in (self.channel, self.control):
            end.settimeout(HANG_SECONDS)
        prepare_channel(theirs)
        self._theirs, self._control = theirs, control
        loop = Serving(self.model, theirs, control, GO)
        self.thread = threading.Thread(target=loop.run, daemon=True)
        self.thread.start()

    def compute(self, *entries: Entry, signature: int = 0, payload: Sequence[bytes]) -> Exchange:
        """One request and its reply."""
        return drive(
            self.channel,
            Exchange(
                Kind.COMPUTE,
                7,
                signature=signature,
                table=pack_table(entries),
                payload=payload,
                most=1 << 30,
            ),
        )

    def answers(self) -> bool:
        """Whether a sound request gets its answer."""
        exchange = self.compute(FOUR, payload=[b"abcd"])
        return [bytes(tensor) for tensor in exchange.tensors] == [b"dcba"]

    def ping(self, number: int) -> tuple[int, int]:
        """Send a ping; returns the pong's number and count of calls."""
        self.control.sendall(pack(Message.PING, struct.pack("<Q", number)))
        data = b""
        while len(data) < HEAD.size + PONG.size:
            data += self.control.recv(100)
        assert data[: HEAD.size] == HEAD.pack(PONG.size, Message.PONG)
        pong: tuple[int, int] = PONG.unpack(data[HEAD.size :])
        return pong

    def has_ended(self) -> bool:
        """Wait for the loop's end."""
        self.thread.join(HANG_SECONDS)
        return not self.thread.is_alive()

    def close(self) -> None:
        """End it."""
        self.channel.close()
        assert self.has_ended()
        self.control.close()
        self._theirs.close()
        self._control.close()


FOUR = Entry(DataType.UINT8, (4,), 4)
TABLE = pack_table([FOUR])
REQUEST = (
    pack_header(Kind.COMPUTE, 9, payload_length=4, table_length=len(TABLE), tensors=1)
    + TABLE
    + b"abcd"
)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker's loop; at the end it must have ended by the end of its channel."""
    made = Worker()
    yield made
    made.close()


def read(channel: socket.socket, count: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        assert piece, "the channel ended"
        data += piece
    return data


def test_a_request_may_come_in_any_two_pieces(worker: Worker) -> None:
    replies = set()
    for cut in range(1, len(REQUEST)):
        worker.channel.sendall(REQUEST[:cut])
        worker.channel.sendall(REQUEST[cut:])
        replies.add(read(worker.channel, 48 + len(TABLE) + 4)[-4:])
    assert replies == {b"dcba"}
    for byte in REQUEST:
        worker.channel.sendall(bytes([byte]))
    assert read(worker.channel, 48 + len(TABLE) + 4)[-4:] == b"dcba"


def test_requests_in_one_piece_are_answered_in_order(worker: Worker) -> None:
    def request(number: int) -> bytes:
        head = pack_header(
            Kind.COMPUTE, number, payload_length=4, table_length=len(TABLE), tensors=1
        )
        return head + TABLE + f"{number:04}".encode()

    requests = b"".join(request(number) for number in range(2000))
    sender = threading.Thread(target=worker.channel.sendall, args=(requests,))
    sender.start()
    for number in range(2000):
        reply = read(worker.channel, 48 + len(TABLE) + 4)
        assert unpack_header(reply[:48]).sequence == number
        assert reply[-4:] == f"{number:04}".encode()[::-1]
    sender.join()


def test_the_answer_tells_its_times(worker: Worker) -> None:
    header = worker.compute(FOUR, payload=[b"abcd"]).header
    assert header is not None
    assert header.queue_ns > 0
    assert header.compute_ns > 0


@pytest.mark.parametrize(
    ("entries", "payload", "signature", "message"),
    [
        ([], [], 0, "0 inputs came, 1 are needed"),
        ([FOUR, FOUR], [b"abcd"] * 2, 0, "2 inputs came"),
        ([FOUR], [b"abcd"], 4, "there is no signature 4"),
        ([FOUR], [b"abcd"], 65535, "there is no signature 65535"),
        ([Entry(DataType.INT8, (4,), 4)], [b"abcd"], 0, "is uint8, not int8"),
        ([Entry(DataType.UINT8, (2, 2), 4)], [b"abcd"], 0, "has dimensions (4,), not (2, 2)"),
        ([Entry(DataType.UINT8, (5,), 5)], [b"abcde"], 0, "not (5,)"),
        ([Entry(DataType.UINT8, (4,), 4)], [b"abc"], 0, "do not add up"),
        ([Entry(DataType.UINT8, (4,), 3)], [b"abc"], 0, "do not fit"),
        ([Entry(DataType.FLOAT32, (-1,), 4)], [b"abcd"], 1, "are no dimensions"),
        ([Entry(DataType.FLOAT32, (2**62,), 0)], [b""], 1, "do not fit"),
        ([Entry(DataType.FLOAT32, (13,), 52)], [bytes(52)], 1, "13 brings no luck"),
        ([Entry(DataType.STRING, (2,), 7), FOUR], [bytes(7), b"abcd"], 2, "does not hold"),
        ([Entry(DataType.STRING, (2**40,), 7), FOUR], [bytes(7), b"abcd"], 2, "does not hold"),
        ([Entry(DataType.STRING, (0,), 9), FOUR], [bytes(9), b"abcd"], 2, "fill their buffer"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_wrong_request_is_refused_and_the_next_is_in_its_place(
    worker: Worker, entries: list[Entry], payload: list[bytes], signature: int, message: str
) -> None:
    for _ in range(2):
        exchange = worker.compute(*entries, signature=signature, payload=payload)
        assert exchange.failure is not None
        assert exchange.failure.cause == "invalid-input"
        assert message in exchange.failure.message
        assert worker.answers()


def send(worker: Worker, table: bytes, tensors: int, payload: bytes) -> Any:
    """Send a request with any table; returns the failure."""
    head = pack_header(
        Kind.COMPUTE, 3, payload_length=len(payload), table_length=len(table), tensors=tensors
    )
    worker.channel.sendall(head + table + payload)
    header = unpack_header(read(worker.channel, 48))
    assert (header.kind, header.sequence) == (Kind.FAILURE, 3)
    return unpack_failure(read(worker.channel, header.payload_length))


@pytest.mark.parametrize(
    ("table", "tensors"),
    [
        (TABLE + b"x", 1),
        (TABLE[:-1], 1),
        (TABLE, 0),
        (struct.pack("<BBxxxxxxQ", 99, 1, 4) + struct.pack("<q", 4), 1),
        (struct.pack("<BBxxxxxxQ", 11, 255, 4) + bytes(255 * 8), 1),
        (TABLE * 1000, 1000),
    ],
    ids=["longer", "shorter", "no tensors", "type", "rank", "many"],
)
def test_a_wrong_table_is_refused(worker: Worker, table: bytes, tensors: int) -> None:
    assert worker.answers()
    for payload in (b"abcd", b"", b"x" * 100_000):
        failure = send(worker, table, tensors, payload)
        assert failure.cause == "invalid-input"
        assert worker.answers()


@pytest.mark.parametrize("payload", [b"", b"abc", b"abcdefgh"])
def test_the_known_table_with_another_length_is_refused(worker: Worker, payload: bytes) -> None:
    """The last good table is remembered; the payload that comes with it must still fit."""
    assert worker.answers()
    assert send(worker, TABLE, 1, payload).cause == "invalid-input"
    assert worker.answers()


def test_too_large_inputs_and_outputs_are_refused_by_name(worker: Worker) -> None:
    count = GO.tensor_bytes // 4 + 1
    large = worker.compute(
        Entry(DataType.FLOAT32, (count,), 4 * count), signature=1, payload=[bytes(4 * count)]
    )
    assert large.failure is not None
    assert (large.failure.cause, large.failure.limit) == ("limit", "tensor_bytes")
    assert (large.failure.value, large.failure.maximum) == (4 * count, GO.tensor_bytes)
    assert worker.answers()
    worker.model.answer = bytes(GO.output_bytes + 1)
    output = worker.compute(FOUR, payload=[b"abcd"])
    assert output.failure is not None
    assert (output.failure.limit, output.failure.value) == ("output_bytes", GO.output_bytes + 1)
    worker.model.answer = None
    assert worker.answers()


@pytest.mark.parametrize(
    ("error", "cause", "limit"),
    [
        (ModelFailed("no"), "failed", ""),
        (MemoryError(), "out-of-memory", "memory_bytes"),
        (LimitReached("much", "memory_bytes", 2, 1), "out-of-memory", "memory_bytes"),
        (KeyError("x"), "internal", ""),
    ],
)
def test_a_failing_run_leaves_the_model_usable(
    worker: Worker, error: Exception, cause: str, limit: str
) -> None:
    worker.model.fails = error
    failure = worker.compute(FOUR, payload=[b"abcd"]).failure
    assert failure is not None
    assert (failure.cause, failure.limit) == (cause, limit)
    assert worker.answers()


def test_open_shapes_strings_and_many_outputs(worker: Worker) -> None:
    for count in (1, 5, 0, 100_000):
        values = np.arange(count, dtype=np.float32)
        entry = Entry(DataType.FLOAT32, (count,), values.nbytes)
        exchange = worker.compute(entry, signature=1, payload=[values.tobytes()])
        assert exchange.entries == (entry,)
        assert np.array_equal(np.frombuffer(exchange.tensors[0], np.float32), values * 2)
    text = pack_strings([b"ab", b"", b"cde"])
    exchange = worker.compute(
        Entry(DataType.STRING, (3,), len(text)), FOUR, signature=2, payload=[text, b"abcd"]
    )
    assert unpack_strings(exchange.tensors[0], 3) == [b"ba", b"", b"edc"]
    # More pieces than one writev takes.
    many = worker.compute(signature=3, payload=[])
    assert b"".join(bytes(tensor) for tensor in many.tensors) == bytes(
        index % 251 for index in range(3000)
    )


def test_reset(worker: Worker) -> None:
    for count in (1, 2):
        assert drive(worker.channel, Exchange(Kind.RESET, count)).done
        assert worker.model.resets == count
        assert worker.answers()
    # A reset with a table and a payload is read to its end.
    head = pack_header(Kind.RESET, 5, payload_length=4, table_length=len(TABLE), tensors=1)
    worker.channel.sendall(head + TABLE + b"abcd")
    assert unpack_header(read(worker.channel, 48)).kind is Kind.DONE
    assert worker.answers()


def test_pings_are_answered_when_idle_and_between_calls(worker: Worker) -> None:
    assert worker.ping(5) == (5, 0)
    for _ in range(3):
        assert worker.answers()
    assert worker.ping(6) == (6, 3)
    # Without a pause in which it would wait: between two calls.
    worker.control.sendall(pack(Message.PING, struct.pack("<Q", 7)))
    worker.control.setblocking(False)
    calls, answer = 3, b""
    while not answer:
        assert worker.answers()
        calls += 1
        with suppress(BlockingIOError):
            answer = worker.control.recv(100)
    number, counted = PONG.unpack(answer[HEAD.size :])
    assert number == 7
    assert 3 <= counted <= calls


def test_pings_are_answered_while_a_request_or_an_answer_is_under_way(worker: Worker) -> None:
    worker.channel.sendall(REQUEST[:60])
    assert worker.ping(1) == (1, 0)
    worker.channel.sendall(REQUEST[60:])
    assert read(worker.channel, 48 + len(TABLE) + 4)[-4:] == b"dcba"
    # An answer larger than the socket takes, which nobody reads yet.
    count = GO.output_bytes // 4
    entry = Entry(DataType.FLOAT32, (count,), 4 * count)
    table = pack_table([entry])
    head = pack_header(
        Kind.COMPUTE, 2, signature=1, payload_length=4 * count, table_length=len(table), tensors=1
    )
    worker.channel.sendall(head + table + bytes(4 * count))
    assert worker.ping(2) == (2, 1)
    assert len(read(worker.channel, 48 + len(table) + 4 * count)) > count
    assert worker.answers()


def send_what_has_a_large_answer(worker: Worker) -> int:
    """Send zeros, to be doubled; returns the length of the answer, which nobody reads yet."""
    count = GO.output_bytes // 4
    table = pack_table([Entry(DataType.FLOAT32, (count,), 4 * count)])
    head = pack_header(
        Kind.COMPUTE, 2, signature=1, payload_length=4 * count, table_length=len(table), tensors=1
    )
    worker.channel.sendall(head + table + bytes(4 * count))
    return 48 + len(table) + 4 * count


def is_part_of_the_answer(worker: Worker, length: int) -> bool:
    """Read all that comes: whether that is a beginning of the answer, and nothing else."""
    data = bytearray()
    worker.channel.settimeout(1)
    with suppress(TimeoutError):
        while piece := worker.channel.recv(1 << 20):
            data += piece
    return 100 < len(data) < length and not any(data[length - GO.output_bytes :])


def test_the_end_of_the_broker_puts_nothing_into_half_an_answer(worker: Worker) -> None:
    length = send_what_has_a_large_answer(worker)
    assert worker.ping(1) == (1, 0)  # it waits for room, and looks here meanwhile
    worker.control.sendall(pack(Message.PING, struct.pack("<Q", 2)))
    worker.control.close()
    assert worker.has_ended()
    assert is_part_of_the_answer(worker, length)


def test_half_an_answer_is_not_followed_by_a_failure(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(buffer: object) -> memoryview:
        raise MemoryError

    monkeypatch.setattr(serving, "byte_view", no_memory)
    length = send_what_has_a_large_answer(worker)
    assert worker.has_ended()
    assert is_part_of_the_answer(worker, length)


@pytest.mark.parametrize("sent", [b"", REQUEST[:20], REQUEST[:60], REQUEST[:-1]])
def test_the_end_of_the_channel_ends_it_wherever_it_comes(worker: Worker, sent: bytes) -> None:
    assert worker.answers()
    worker.channel.sendall(sent)
    worker.channel.close()
    assert worker.has_ended()


def test_the_end_of_the_broker_ends_it(worker: Worker) -> None:
    worker.control.close()
    assert worker.has_ended()


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 48,
        bytes(48),
        pack_header(Kind.ANSWER, 1),
        pack_header(Kind.COMPUTE, 1, table_length=2**32 - 1),
        pack_header(Kind.COMPUTE, 1, table_length=16, tensors=2),
        REQUEST[:4] + b"\x63" + REQUEST[5:48],
    ],
    ids=["garbage", "zeros", "a reply", "huge table", "small table", "unknown kind"],
)
def test_what_is_no_request_ends_it_with_a_word(
    worker: Worker, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    worker.channel.sendall(data)
    assert worker.has_ended()
    assert capfd.readouterr().err.startswith("the client sent what is no request: ")


def finish(worker: Worker) -> None:
    """Order it to end once nothing is left to answer."""
    worker.control.sendall(pack(Message.FINISH, FINISH_PAYLOAD))


def test_one_that_is_to_finish_ends_between_two_answers(worker: Worker) -> None:
    assert worker.answers()
    finish(worker)
    assert worker.has_ended()


def test_one_that_is_to_finish_ends_although_requests_follow_each_other(worker: Worker) -> None:
    worker.channel.settimeout(1)
    finish(worker)
    # Nobody closes the channel here, as the end of a process does.
    with suppress(TimeoutError):
        while worker.thread.is_alive():
            assert worker.answers()
    assert worker.has_ended()


def test_one_that_is_to_finish_gives_the_whole_answer_that_it_has_begun(worker: Worker) -> None:
    length = send_what_has_a_large_answer(worker)
    finish(worker)
    assert worker.ping(1) == (1, 0)  # it has read the order before this, and goes on
    assert len(read(worker.channel, length)) == length
    assert worker.has_ended()


def park(worker: Worker, calls: int) -> None:
    """Order it to make room if it has computed so often."""
    worker.control.sendall(pack(Message.PARK, struct.pack("<Q", calls)))


def test_one_that_is_to_be_parked_says_so_and_ends(worker: Worker) -> None:
    assert worker.answers()
    park(worker, 1)
    assert worker.control.recv(100) == pack(Message.PARKED)
    assert worker.has_ended()


def test_one_that_has_computed_since_is_not_parked(worker: Worker) -> None:
    assert worker.answers()
    park(worker, 0)
    assert worker.ping(1) == (1, 1)
    assert worker.answers()


@pytest.mark.parametrize("sent", [20, 48, 60, 48 + len(TABLE), 48 + len(TABLE) + 2])
def test_one_that_has_begun_to_read_a_request_answers_it_and_is_not_parked(
    worker: Worker, sent: int
) -> None:
    worker.channel.sendall(REQUEST[:sent])
    unread, ends = struct.pack("i", 1), time.monotonic() + HANG_SECONDS
    while any(unread):
        assert time.monotonic() < ends
        unread = fcntl.ioctl(worker._theirs, termios.FIONREAD, bytes(4))
        time.sleep(0.001)
    park(worker, 0)
    assert worker.ping(1) == (1, 0)  # it has read the order before this
    worker.channel.sendall(REQUEST[sent:])
    assert read(worker.channel, len(REQUEST))[-4:] == b"dcba"
    assert worker.ping(2) == (2, 1)


def test_each_request_is_answered_or_left_whole_for_the_next_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An order to park and a request come at the same time, in whichever order they are seen."""
    # It looks at the control socket a thousand times a second.
    monkeypatch.setattr(serving, "LOOK_AFTER_NS", 1_000_000)
    for number in range(200):
        worker = Worker()
        later = threading.Timer(number % 20 / 10_000, worker.channel.sendall, [REQUEST])
        later.start()
        park(worker, 0)
        heard, _, _ = select.select([worker.control, worker.channel], [], [], HANG_SECONDS)
        later.join()
        if heard == [worker.control]:
            assert worker.control.recv(100) == pack(Message.PARKED)
            assert worker.has_ended()
            assert worker._theirs.recv(1000) == REQUEST
        else:
            assert heard == [worker.channel]
            assert read(worker.channel, len(REQUEST))[-4:] == b"dcba"
        worker.close()
