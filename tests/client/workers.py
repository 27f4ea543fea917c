"""Workers that behave on order: each is a function that answers one frame on a socket.

``python -m tests.client.workers DESCRIPTOR`` echoes in a process of its own.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import (
    HEADER,
    Entry,
    Header,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_header,
    unpack_table,
)


class Ended(Exception):
    """The client closed its end."""


@dataclass
class Frame:
    """A request as the worker reads it."""

    header: Header
    entries: tuple[Entry, ...]
    payload: list[bytes]


Behaviour = Callable[[socket.socket, Frame], None]


def read_exactly(channel: socket.socket, length: int) -> bytearray:
    """Read that many bytes; raises Ended at the end of the stream."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            raise Ended
        view = view[count:]
    return data


def read_frame(channel: socket.socket) -> Frame:
    """Read one request."""
    header = unpack_header(read_exactly(channel, HEADER.size))
    table = read_exactly(channel, header.table_length)
    payload = bytes(read_exactly(channel, header.payload_length))
    entries = unpack_table(table, header.tensors, header.payload_length)
    parts = []
    for entry in entries:
        parts.append(payload[: entry.byte_length])
        payload = payload[entry.byte_length :]
    return Frame(header, entries, parts)


def serve(channel: socket.socket, behave: Behaviour) -> None:
    """Answer frames until the client, or the behaviour, ends the channel."""
    with channel:
        while True:
            try:
                frame = read_frame(channel)
                if frame.header.kind is Kind.RESET:
                    channel.sendall(pack_header(Kind.DONE, frame.header.sequence))
                else:
                    behave(channel, frame)
            except (Ended, OSError):
                return


def answer_bytes(sequence: int, entries: Sequence[Entry], payload: Sequence[bytes]) -> bytes:
    """Build an ANSWER frame."""
    table = pack_table(entries)
    head = pack_header(
        Kind.ANSWER,
        sequence,
        payload_length=sum(map(len, payload)),
        table_length=len(table),
        tensors=len(entries),
    )
    return head + table + b"".join(payload)


def failure_bytes(sequence: int, failure: Failure) -> bytes:
    """Build a FAILURE frame."""
    payload = pack_failure(failure)
    return pack_header(Kind.FAILURE, sequence, payload_length=len(payload)) + payload


def echo(channel: socket.socket, frame: Frame) -> None:
    """Answer with the inputs."""
    channel.sendall(answer_bytes(frame.header.sequence, frame.entries, frame.payload))


def dribble(channel: socket.socket, frame: Frame) -> None:
    """Answer with the inputs, in small pieces."""
    data = answer_bytes(frame.header.sequence, frame.entries, frame.payload)
    step = max(1, len(data) // 40)
    for place in range(0, len(data), step):
        channel.sendall(data[place : place + step])


def slow_echo(seconds: float) -> Behaviour:
    """Answer with the inputs after a while."""

    def behave(channel: socket.socket, frame: Frame) -> None:
        time.sleep(seconds)
        echo(channel, frame)

    return behave


def say(*pieces: bytes) -> Behaviour:
    """Answer with bytes as they are."""

    def behave(channel: socket.socket, frame: Frame) -> None:
        for piece in pieces:
            channel.sendall(piece)

    return behave


def fail(cause: Cause, message: str = "no") -> Behaviour:
    """Answer each computation with a failure."""

    def behave(channel: socket.socket, frame: Frame) -> None:
        channel.sendall(failure_bytes(frame.header.sequence, Failure(cause, message)))

    return behave


def end(channel: socket.socket, frame: Frame) -> None:
    """End in the middle of a call."""
    raise Ended


def never(channel: socket.socket, frame: Frame) -> None:
    """Give no answer."""


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), echo)
