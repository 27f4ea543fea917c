"""What a hostile worker says to its client and to its broker."""

from __future__ import annotations

import os
import socket
import struct
from time import monotonic

from loader_service.worker.control import Message, pack
from model_loader_wire.frames import HEADER, MAGIC, Kind, pack_header
from tests.hostile.attacks import deaths
from tests.hostile.attacks.calls import call

CONTROL = 3
CHANNEL = 4


def _write(descriptor: int, data: bytes) -> None:
    """Write everything, whatever time-out the socket has."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            call("poll", 0, 0, 10)


def on_channel(data: str, end: bool = False) -> None:
    """Write bytes (hexadecimal) where an answer belongs; then end, or compute for ever."""
    _write(CHANNEL, bytes.fromhex(data))
    if end:
        os._exit(0)
    deaths.hang()


def on_control(data: str, seconds: float = 0) -> None:
    """Write bytes (hexadecimal) to the broker; then go on living."""
    _write(CONTROL, bytes.fromhex(data))
    deaths.hang()


def flood(descriptor: int, data: str) -> None:
    """Write the same bytes for ever."""
    piece = bytes.fromhex(data) * max(1, 65536 // max(1, len(data) // 2))
    while True:
        _write(descriptor, piece)


def close_socket(descriptor: int) -> None:
    """Close a socket and live on."""
    os.close(descriptor)
    deaths.hang()


def endless_answer(sequence: int) -> None:
    """Announce as much as a header can say, and send without end."""
    header = pack_header(Kind.ANSWER, sequence, payload_length=2**63, table_length=0, tensors=0)
    _write(CHANNEL, header)
    flood(CHANNEL, "00")


def send_descriptor(over: int, what: int) -> int:
    """Hand one of the worker's descriptors to whoever reads the socket."""
    message = socket.socket(fileno=os.dup(over)) if over > 4 else socket.socket(fileno=over)
    return message.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", what))])


def speak_for_seconds(seconds: float) -> None:
    """Send pongs that nobody asked for."""
    end = monotonic() + seconds
    while monotonic() < end:
        _write(CONTROL, pack(Message.PONG, bytes(16)))


assert HEADER.size == 48
assert MAGIC == b"MLC1"
