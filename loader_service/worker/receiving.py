"""Reading what the broker sends: whole messages, and a model straight into its final place."""

from __future__ import annotations

import ctypes
import socket
import sys

from loader_service.worker.control import HEAD, MODEL_PIECE, BadMessage, Message, unpack_head

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
_HEADER_SIZE = bytes.__basicsize__ - 1


class BrokerGone(Exception):
    """The control socket ended: nobody needs this worker any more."""


def fill(sock: socket.socket, view: memoryview) -> None:
    """Receive until `view` is full; raises BrokerGone at the end of the stream."""
    while len(view):
        count = sock.recv_into(view)
        if count == 0:
            raise BrokerGone
        view = view[count:]


def receive(sock: socket.socket, *kinds: Message) -> tuple[Message, bytearray]:
    """Receive one message of one of `kinds`; raises BadMessage for any other."""
    kind, length = _receive_head(sock, kinds)
    payload = bytearray(length)
    fill(sock, memoryview(payload))
    return kind, payload


def receive_model(sock: socket.socket, size: int) -> bytes:
    """Receive a model: `size` bytes, or until MODEL_END where the size is 0.

    The interpreter takes nothing but ``bytes``; of known size it is filled in place, before
    anybody else can see it, so that the model is in memory once.
    """
    if size == 0:
        pieces: list[bytes] = []
        while True:
            kind, payload = receive(sock, Message.MODEL, Message.MODEL_END)
            if kind is Message.MODEL_END:
                return b"".join(pieces)
            pieces.append(bytes(payload))
    model: bytes = _new_bytes(None, size)
    assert sys.getsizeof(model) == _HEADER_SIZE + size + 1
    place = memoryview((ctypes.c_char * size).from_address(id(model) + _HEADER_SIZE)).cast("B")
    while True:
        kind, length = _receive_head(sock, (Message.MODEL, Message.MODEL_END))
        if kind is Message.MODEL_END:
            break
        if length > len(place):
            raise BadMessage("more bytes came than were announced")
        fill(sock, place[:length])
        place = place[length:]
    if len(place):
        raise BadMessage(f"{len(place)} bytes fewer came than were announced")
    return model


def _receive_head(sock: socket.socket, kinds: tuple[Message, ...]) -> tuple[Message, int]:
    head = bytearray(HEAD.size)
    fill(sock, memoryview(head))
    kind, length = unpack_head(head, MODEL_PIECE)
    if kind not in kinds:
        raise BadMessage(f"{kind.name} may not come now")
    return kind, length
