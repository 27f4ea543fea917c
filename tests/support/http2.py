"""HTTP/2 by hand: enough to send gRPC what no library would. Source: RFC 9113 and RFC 7541."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum, IntFlag
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_LENGTH = 9
WINDOW = 65535
"""Bytes that may be sent, on a stream and in all, before the first WINDOW_UPDATE."""
INITIAL_WINDOW_SIZE = 4
"""The setting's number."""
SECONDS = 20.0


class Frame(IntEnum):
    """Kinds of frames."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Flags of frames."""

    NONE = 0
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4


class Ended(Exception):
    """The server has closed the connection, or said that it will."""


class Connection:
    """A connection of a client that does as it pleases."""

    def __init__(self, path: str, *, greet: bool = True) -> None:
        """Connect; `greet` with the preface and an empty SETTINGS frame."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)
        self.room = WINDOW
        """Bytes of DATA that the server takes now in all."""
        self.room_of: dict[int, int] = {}
        self.ended_streams: set[int] = set()
        """Those that the server has ended."""
        self._headers: dict[int, bytes] = {}
        self._received = b""
        self._stream = -1
        self._window = WINDOW
        if greet:
            self.socket.sendall(PREFACE)
            self.send(Frame.SETTINGS)

    def send(
        self, kind: Frame, flags: Flag = Flag.NONE, stream: int = 0, payload: bytes = b""
    ) -> None:
        """Send one frame; raises Ended."""
        try:
            self.socket.sendall(frame(kind, flags, stream, payload))
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None

    def request(self, path: str, *more: tuple[str, str], end: bool = True) -> int:
        """Begin a gRPC call; returns its stream."""
        self._stream += 2
        self.room_of[self._stream] = self._window
        flags = Flag.END_HEADERS if end else Flag.NONE
        self.send(Frame.HEADERS, flags, self._stream, headers(path, *more))
        return self._stream

    def data(self, stream: int, data: bytes) -> None:
        """Send all of it, as fast as the server takes it; raises Ended."""
        while data:
            count = min(self.room, self.room_of[stream], 16384, len(data))
            if stream in self.ended_streams:
                return
            if count <= 0:
                self.take()
                continue
            self.send(Frame.DATA, Flag.NONE, stream, data[:count])
            self.room -= count
            self.room_of[stream] -= count
            data = data[count:]

    def take(self) -> tuple[int, int, bytes]:
        """Receive one frame: kind, stream and payload; raises Ended at the connection's end."""
        head = self._read(HEAD_LENGTH)
        length = int.from_bytes(head[:3])
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = self._read(length)
        if kind == Frame.WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream:
                self.room_of[stream] = self.room_of.get(stream, 0) + more
            else:
                self.room += more
        elif kind == Frame.SETTINGS and not flags & Flag.ACK:
            for identifier, value in struct.iter_unpack(">HI", payload):
                if identifier == INITIAL_WINDOW_SIZE:
                    more, self._window = value - self._window, value
                    self.room_of = {of: room + more for of, room in self.room_of.items()}
            self.send(Frame.SETTINGS, Flag.ACK)
        elif kind == Frame.PING and not flags & Flag.ACK:
            # Else the server takes the connection for a slow one.
            self.send(Frame.PING, Flag.ACK, payload=payload)
        elif kind == Frame.GOAWAY:
            raise Ended(payload[8:].decode("ascii", "replace"))
        if kind == Frame.HEADERS:
            self._headers[stream] = payload
        if kind == Frame.RST_STREAM or (kind == Frame.HEADERS and flags & Flag.END_STREAM):
            self.ended_streams.add(stream)
        return kind, stream, payload

    def until_ended(self) -> str:
        """Receive until the server ends the connection; returns what it said about that."""
        try:
            while True:
                self.take()
        except Ended as error:
            return str(error)

    def until_stream_ends(self, stream: int) -> bytes:
        """Receive until the server ends a stream; returns the payload of its last HEADERS."""
        while stream not in self.ended_streams:
            self.take()
        return self._headers.get(stream, b"")

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                piece = self.socket.recv(1 << 16)
            except ConnectionResetError:
                raise Ended from None
            if not piece:
                raise Ended
            self._received += piece
        data, self._received = self._received[:count], self._received[count:]
        return data


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Write one frame."""
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
    return head + payload


def headers(path: str, *more: tuple[str, str]) -> bytes:
    """A header block of literals that are not indexed: no state, no compression.

    Bytes that are no text are given as lone surrogates.
    """
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


def message_head(length: int) -> bytes:
    """What precedes a gRPC message of so many bytes."""
    return struct.pack(">BI", 0, length)
