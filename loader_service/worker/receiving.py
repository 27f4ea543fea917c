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


class IncomingModel:
    """A model on its way in: `size` bytes, or as many as come where the size is 0.

    The interpreter takes nothing but ``bytes``; of known size it is filled in place, before
    anybody else can see it, so that the model is in memory once.
    """

    def __init__(self, size: int) -> None:
        self._pieces: list[bytearray] = []
        self._model: bytes | None = None
        if size:
            self._model = _new_bytes(None, size)
            assert sys.getsizeof(self._model) == _HEADER_SIZE + size + 1
            at = id(self._model) + _HEADER_SIZE
            self._place = memoryview((ctypes.c_char * size).from_address(at)).cast("B")

    def space(self, length: int) -> memoryview:
        """Return the place of the next piece; raises BadMessage for more than was announced."""
        if self._model is None:
            self._pieces.append(bytearray(length))
            return memoryview(self._pieces[-1])
        if length > len(self._place):
            raise BadMessage("more bytes came than were announced")
        place, self._place = self._place[:length], self._place[length:]
        return place

    def whole(self) -> bytes:
        """Return the model; raises BadMessage if fewer bytes came than were announced."""
        if self._model is None:
            return b"".join(self._pieces)
        if len(self._place):
            raise BadMessage(f"{len(self._place)} bytes fewer came than were announced")
        return self._model


def receive_model(sock: socket.socket, size: int) -> bytes:
    """Receive a model of `size` bytes, until MODEL_END; see `IncomingModel`."""
    model = IncomingModel(size)
    while True:
        kind, length = _receive_head(sock, (Message.MODEL, Message.MODEL_END))
        if kind is Message.MODEL_END:
            return model.whole()
        fill(sock, model.space(length))


def _receive_head(sock: socket.socket, kinds: tuple[Message, ...]) -> tuple[Message, int]:
    head = bytearray(HEAD.size)
    fill(sock, memoryview(head))
    kind, length = unpack_head(head, MODEL_PIECE)
    if kind not in kinds:
        raise BadMessage(f"{kind.name} may not come now")
    return kind, length
