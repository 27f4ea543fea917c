"""The other end of a connected socket: whether it has gone, and letting go of it."""

from __future__ import annotations

import select
import socket


def has_gone(connected: socket.socket) -> bool:
    """Look, without waiting and without taking anything, whether the other end is gone.

    Bytes that nobody has read yet do not hide the end. A closed socket has lost its other end.
    """
    descriptor = connected.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))


def shut_down(connected: socket.socket) -> None:
    """End the connection for both sides: who waits on it goes on. The descriptor stays."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
