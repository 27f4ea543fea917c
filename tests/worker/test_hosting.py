"""The loop of a host, with models that are no interpreters."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from loader_service.runtime.engine import LoadedModel
from loader_service.worker.control import (
    FINISH_PAYLOAD,
    HEAD,
    NUMBER,
    Message,
    pack,
    pack_fields,
    unpack_head,
)
from loader_service.worker.hosting import TURN_BYTES, Host
from loader_service.worker.receiving import BrokerGone
from loader_service.writer import hostile, small
from model_loader_wire.causes import Cause
from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Entry, Kind, pack_header, pack_table, unpack_header
from tests.support.raw_client import HANG_SECONDS, drive
from tests.worker.test_serving import FOUR, GO, REQUEST, TABLE, Model, read

COUNT = 3
CONTENT = small.add()
LARGE = 4 << 20
"""Bytes: more than a channel holds, and than one turn receives."""
BIG = replace(GO, tensor_bytes=LARGE, output_bytes=LARGE)


class Runtime:
    """Makes models that compute by themselves."""

    name = version = "none"

    def __init__(self) -> None:
        self.made: list[Model] = []
        self.fails: Exception | None = None

    def warm(self) -> None:
        """Nothing to do."""

    def load(self, model: bytes, *, threads: int, memory_bytes: int | None) -> LoadedModel:
        """A model."""
        assert model == CONTENT
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        self.made.append(Model())
        loaded: Any = self.made[-1]
        return loaded  # type: ignore[no-any-return]


class Hosted:
    """A host's loop in a thread, with the broker's end and the clients' ends."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.control, self._control = socket.socketpair()
        pairs = [socket.socketpair() for _ in range(COUNT)]
        self.clients = [ours for ours, _ in pairs]
        self._channels = [theirs for _, theirs in pairs]
        for channel in self._channels:
            channel.setblocking(False)
        for end in (self.control, *self.clients):
            end.settimeout(HANG_SECONDS)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        runtime: Any = self.runtime
        with suppress(BrokerGone):
            Host(runtime, self._control, self._channels).run()

    def order(self, kind: Message, number: int, rest: bytes = b"") -> None:
        """Send an order about one model."""
        self.control.sendall(pack(kind, NUMBER.pack(number) + rest))

    def heard(self) -> tuple[Message, dict[str, Any]]:
        """The next message."""
        kind, length = unpack_head(read(self.control, HEAD.size), 1 << 20)
        (number,) = NUMBER.unpack(read(self.control, NUMBER.size))
        fields: dict[str, Any] = json.loads(read(self.control, length - NUMBER.size) or b"{}")
        return kind, {**fields, "number": number}

    def open(self, number: int, go: Any = GO, content: bytes = CONTENT) -> None:
        """Send a model, but not its end."""
        self.control.sendall(pack_fields(Message.OPEN, go.to_fields(), NUMBER.pack(number)))
        for start in range(0, len(content), 100):
            self.order(Message.MODEL, number, content[start : start + 100])

    def load(self, number: int, go: Any = GO, content: bytes = CONTENT) -> dict[str, Any]:
        """Load a model; returns what is said of it."""
        self.open(number, go, content)
        self.order(Message.MODEL_END, number)
        kind, fields = self.heard()
        assert fields.pop("number") == number
        assert kind in (Message.LOADED, Message.FAILED)
        return fields

    def answers(self, number: int, payload: bytes = b"abcd") -> bool:
        """Whether a sound request gets its answer."""
        table = pack_table([FOUR])
        exchange = Exchange(Kind.COMPUTE, 7, table=table, payload=[payload], most=1 << 30)
        drive(self.clients[number], exchange)
        return [bytes(tensor) for tensor in exchange.tensors] == [payload[::-1]]

    def ping(self, number: int) -> list[int]:
        """Send a ping; returns the counts of calls."""
        self.control.sendall(pack(Message.PING, struct.pack("<Q", number)))
        assert read(self.control, HEAD.size) == HEAD.pack(8 + 8 * COUNT, Message.PONG)
        echoed, *counts = struct.unpack(f"<{1 + COUNT}Q", read(self.control, 8 + 8 * COUNT))
        assert echoed == number
        return counts

    def close(self) -> None:
        """End it."""
        self.control.close()
        self.thread.join(HANG_SECONDS)
        assert not self.thread.is_alive()
        for end in (self._control, *self._channels, *self.clients):
            end.close()


@pytest.fixture
def host() -> Iterator[Hosted]:
    """A host; at the end it must have ended with its control socket."""
    made = Hosted()
    yield made
    made.close()


def doubled(count: int) -> tuple[bytes, int]:
    """A request to double so many floats, with its length."""
    table = pack_table([Entry(DataType.FLOAT32, (count,), 4 * count)])
    head = pack_header(
        Kind.COMPUTE,
        9,
        signature=1,
        payload_length=4 * count,
        table_length=len(table),
        tensors=1,
    )
    return head + table + bytes(4 * count), 48 + len(table) + 4 * count


def test_each_model_answers_on_its_own_channel(host: Hosted) -> None:
    for number in (2, 0):
        assert host.load(number)["runtime"] == "none"
    for _ in range(3):
        assert host.answers(0, b"abcd")
        assert host.answers(2, b"wxyz")
    assert host.answers(2)
    assert host.ping(77) == [3, 0, 4]


def test_half_a_request_of_one_client_holds_up_nobody(host: Hosted) -> None:
    for number in range(2):
        host.load(number)
    for cut in range(1, len(REQUEST)):
        host.clients[0].sendall(REQUEST[:cut])
        assert host.answers(1)
        host.clients[0].sendall(REQUEST[cut:])
        assert read(host.clients[0], 48 + len(TABLE) + 4)[-4:] == b"dcba"


def test_an_answer_that_is_not_read_holds_up_nobody(host: Hosted) -> None:
    for number in range(2):
        host.load(number, BIG)
    request, length = doubled(LARGE // 4)
    sender = threading.Thread(target=host.clients[0].sendall, args=(request + REQUEST,))
    sender.start()
    sender.join(HANG_SECONDS)
    assert not sender.is_alive(), "the host takes a request while it has an answer to send"
    for _ in range(5):
        assert host.answers(1)
    assert host.ping(1) == [1, 5, 0]
    assert len(read(host.clients[0], length)) == length
    assert read(host.clients[0], 48 + len(TABLE) + 4)[-4:] == b"dcba"


def test_a_long_request_takes_turns(host: Hosted) -> None:
    for number in range(2):
        host.load(number, BIG)
    request, length = doubled(LARGE // 4)
    assert length > 4 * TURN_BYTES
    for start in range(0, len(request), TURN_BYTES):
        host.clients[0].sendall(request[start : start + TURN_BYTES])
        assert host.answers(1)
    assert len(read(host.clients[0], length)) == length


def test_inputs_above_the_limit_are_refused_and_not_kept(host: Hosted) -> None:
    host.load(0)
    request, length = doubled(1 << 20)
    assert length > GO.tensor_bytes
    host.clients[0].sendall(request)
    header = unpack_header(read(host.clients[0], 48))
    assert header.kind is Kind.FAILURE
    failure = json.loads(read(host.clients[0], header.payload_length))
    assert (failure["cause"], failure["limit"]) == ("limit", "tensor_bytes")
    assert host.answers(0)


def test_a_reset_reaches_its_model_only(host: Hosted) -> None:
    for number in range(2):
        host.load(number)
    assert drive(host.clients[1], Exchange(Kind.RESET, 3)).done
    assert [model.resets for model in host.runtime.made] == [0, 1]


def test_a_failed_call_leaves_all_models(host: Hosted) -> None:
    for number in range(2):
        host.load(number)
    host.runtime.made[0].fails = MemoryError()
    host.clients[0].sendall(REQUEST)
    header = unpack_header(read(host.clients[0], 48))
    failure = json.loads(read(host.clients[0], header.payload_length))
    assert failure["cause"] == Cause.OUT_OF_MEMORY
    assert failure["maximum"] == 2 * GO.memory_bytes, "the limit is the sum of both"
    assert host.answers(0)
    assert host.answers(1)


def test_a_model_that_cannot_be_loaded_leaves_the_others(host: Hosted) -> None:
    host.load(0)
    assert host.load(1, content=hostile.text_instead())["cause"] == Cause.INVALID_MODEL
    host.runtime.fails = MemoryError()
    failed = host.load(1)
    assert (failed["cause"], failed["maximum"]) == (Cause.OUT_OF_MEMORY, 2 * GO.memory_bytes)
    assert host.answers(0)
    host.load(1)
    assert host.answers(1), "the same channel can have another model"


@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_models_that_arrive_at_the_same_time(host: Hosted, size: int) -> None:
    go = replace(GO, model_size=size)
    for number in range(COUNT):
        host.open(number, go)
    for number in reversed(range(COUNT)):
        host.order(Message.MODEL_END, number)
        kind, fields = host.heard()
        assert (kind, fields["number"]) == (Message.LOADED, number)
    assert all(host.answers(number) for number in range(COUNT))


def test_a_model_can_be_given_up_before_it_is_whole(host: Hosted) -> None:
    host.load(0)
    host.open(1)
    host.order(Message.CLOSE, 1)
    assert host.heard() == (Message.CLOSED, {"number": 1})
    assert host.answers(0)


def test_a_closed_model_is_forgotten_with_its_channel(host: Hosted) -> None:
    for number in range(2):
        host.load(number)
    assert host.answers(1)
    host.order(Message.CLOSE, 1)
    assert host.heard() == (Message.CLOSED, {"number": 1})
    assert host.clients[1].recv(1) == b""
    assert host.answers(0)
    assert host.ping(1) == [1, 1, 0]


@pytest.mark.parametrize("how", ["gone", "a reply", "no frame", "in the middle"])
def test_a_client_that_goes_or_sends_no_request_loses_its_model_only(
    host: Hosted, how: str
) -> None:
    for number in range(2):
        host.load(number)
    client = host.clients[0]
    if how == "gone":
        client.close()
    elif how == "a reply":
        client.sendall(pack_header(Kind.ANSWER, 1))
    elif how == "no frame":
        client.sendall(b"GET / HTTP/1.1\r\n" * 3)
    else:
        client.sendall(REQUEST[:60])
        client.close()
    assert host.heard() == (Message.GONE, {"number": 0})
    assert host.answers(1)


def test_a_client_that_goes_with_its_answer_unread_loses_its_model_only(host: Hosted) -> None:
    for number in range(2):
        host.load(number, BIG)
    request, _ = doubled(LARGE // 4)
    host.clients[0].sendall(request)
    assert host.answers(1)
    host.clients[0].close()
    assert host.heard() == (Message.GONE, {"number": 0})
    assert host.answers(1)


def test_one_that_is_to_finish_gives_the_answers_that_it_has_begun(host: Hosted) -> None:
    for number in range(2):
        host.load(number, BIG)
    request, length = doubled(LARGE // 4)
    host.clients[0].sendall(request)
    while host.ping(1)[0] == 0:
        assert host.thread.is_alive()
    host.control.sendall(pack(Message.FINISH, FINISH_PAYLOAD))
    assert len(read(host.clients[0], length)) == length
    host.thread.join(HANG_SECONDS)
    assert not host.thread.is_alive()
