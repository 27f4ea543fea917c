"""A worker receiving its model from the broker."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from loader_service.worker.control import MODEL_PIECE, BadMessage, Message, pack, pack_fields
from loader_service.worker.receiving import BrokerGone, receive, receive_model

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The broker's end and the worker's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("announced", [True, False])
def test_pieces_become_the_model(pair: Pair, announced: bool) -> None:
    broker, worker = pair
    for piece in (b"abc", b"", b"defg"):
        broker.sendall(pack(Message.MODEL, piece))
    broker.sendall(pack(Message.MODEL_END))
    model = receive_model(worker, 7 if announced else 0)
    assert model == b"abcdefg"
    assert type(model) is bytes


@pytest.mark.parametrize("size", [0, 8])
def test_a_ping_is_no_piece_of_a_model(pair: Pair, size: int) -> None:
    broker, worker = pair
    broker.sendall(pack(Message.PING, b"12345678") + pack(Message.MODEL_END))
    with pytest.raises(BadMessage, match="PING may not come now"):
        receive_model(worker, size)


def test_more_and_fewer_bytes_than_announced_are_refused(pair: Pair) -> None:
    broker, worker = pair
    broker.sendall(pack(Message.MODEL, b"12345"))
    with pytest.raises(BadMessage, match="more bytes"):
        receive_model(worker, 4)
    worker.recv(5)
    broker.sendall(pack(Message.MODEL, b"123") + pack(Message.MODEL_END))
    with pytest.raises(BadMessage, match="1 bytes fewer"):
        receive_model(worker, 4)


@pytest.mark.parametrize("size", [0, 4])
def test_the_end_of_the_socket_is_the_end_of_the_broker(pair: Pair, size: int) -> None:
    broker, worker = pair
    broker.sendall(pack(Message.MODEL, b"12")[:-1])
    broker.close()
    with pytest.raises(BrokerGone):
        receive_model(worker, size)


def test_go_comes_first(pair: Pair) -> None:
    broker, worker = pair
    broker.sendall(pack_fields(Message.GO, {}))
    assert receive(worker, Message.GO) == (Message.GO, bytearray(b"{}"))
    broker.sendall(pack(Message.MODEL, b"x"))
    with pytest.raises(BadMessage, match="MODEL may not come now"):
        receive(worker, Message.GO)


def test_a_longer_piece_than_there_can_be_is_refused(pair: Pair) -> None:
    broker, worker = pair
    broker.sendall((MODEL_PIECE + 1).to_bytes(4, "little") + bytes([Message.MODEL]))
    with pytest.raises(BadMessage, match="longer"):
        receive_model(worker, 0)
