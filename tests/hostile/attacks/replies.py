"""What a hostile worker says to its client and to its broker."""

from __future__ import annotations

import os
import socket
import struct

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


def on_control(data: str) -> None:
    """Write bytes (hexadecimal) to the broker; then go on living."""
    _write(CONTROL, bytes.fromhex(data))
    deaths.hang()


def flood(descriptor: int, first: str, data: str) -> None:
    """Write some bytes, and then others for ever."""
    _write(descriptor, bytes.fromhex(first))
    piece = bytes.fromhex(data) * max(1, 65536 // max(1, len(data) // 2))
    while True:
        _write(descriptor, piece)


def close_socket(descriptor: int) -> None:
    """Close a socket and live on."""
    os.close(descriptor)
    deaths.hang()


def send_descriptor(over: int, what: int) -> None:
    """Hand one of the worker's descriptors to whoever reads the socket, and live on."""
    sender = socket.socket(fileno=over)
    data = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", what))]
    # The kernel lets a user have no more on their way than RLIMIT_NOFILE says.
    for _ in range(4):
        sender.sendmsg([b"x" * 48], data)
    sender.detach()
    deaths.hang()
