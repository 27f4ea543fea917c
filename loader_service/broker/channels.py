"""Making a channel: the connected pair of sockets between a client and a worker."""

from __future__ import annotations

import socket
from dataclasses import dataclass

BUFFER_BYTES = 1 << 20
"""What each side may send ahead of the other's reading; the kernel's `net.core.wmem_max` caps it.

It doubles the value for its own bookkeeping. A request that fits is sent by one system call that
does not wait: with the usual buffers of 208 KiB the sender of 600 KB sleeps and is woken once or
twice, and on a busy machine it waits for a processor each time.
"""


@dataclass(frozen=True, slots=True)
class KeptChannel:
    """A channel without a worker."""

    end: socket.socket
    """The worker's end: what the client sends is there for the next one."""
    client_inode: int
    """Of the client's end, as fstat(2) says."""


def make_channel() -> tuple[socket.socket, socket.socket]:
    """Return the client's end and the worker's end."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return ends
