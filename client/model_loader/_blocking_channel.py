"""A direct channel for threads: plain blocking socket calls, two of them for a small call.

A signal handler may raise (Ctrl-C does) between any two bytecodes, also between a system call and
the line that notes how many bytes it moved. A lost count would shift every later answer. So the
count is taken by ``counts.extend(map(call, …))``: ``extend``, ``map`` and the socket's method are
all C, no bytecode runs between them, and therefore no handler either. What interrupts them before
bytes have moved (EINTR) moves nothing.
"""

from __future__ import annotations

import math
import socket
import struct
import time
import weakref
from operator import itemgetter

from model_loader_wire.exchange import Exchange
from model_loader_wire.polling import LONGEST_NS, Polling

from . import _fork
from ._effects import ChannelEnded, DeadlinePassed
from ._ends import has_gone, shut_down

TIMEVAL = struct.Struct("@qq")
IOV_MAX = 1024
"""Most buffers that one system call takes."""
PIECES = 64
"""Most output tensors that one system call fills."""
SLACK = 0.05
"""A deadline may be overrun by this part of its length, to save system calls."""
LONGEST = 1e8
"""Longest wait that is given to the kernel, in seconds."""

_first = itemgetter(0)
# What the calls get as further arguments, made once.
_NO_ANCILLARY = ((),)
_NO_BYTES = (0,)
_NO_SIGNAL = (socket.MSG_NOSIGNAL,)
_AT_ONCE = (socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT,)
_SOME = (0,)
_NOW = (socket.MSG_DONTWAIT,)
_ALL = (socket.MSG_WAITALL,)


class BlockingChannel:
    """Owns the socket; used by one thread at a time (the model's turn), but ``stop`` by any."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(True)
        self.socket = channel
        self._polling = Polling()
        self._wait = 0.0  # what SO_RCVTIMEO and SO_SNDTIMEO are; 0 waits for ever
        # A model that nobody holds any more: its worker ends when this descriptor is closed.
        self._finalizer = weakref.finalize(self, channel.close)
        _fork.close_in_child(self)

    def run(
        self, exchange: Exchange, deadline: float | None, ahead: Exchange | None = None
    ) -> None:
        """Carry the exchange on from wherever it is until it is done.

        Of `ahead`, the one after it, what the channel takes at once is sent before the wait.
        """
        counts = exchange.received_counts
        if counts:
            exchange.advance()
            if exchange.done:
                return
        self._limit(deadline)
        channel = self.socket
        try:
            sent = exchange.sent_counts
            while parts := exchange.outgoing:
                if sent:
                    self._limit(deadline)
                if len(parts) > IOV_MAX:
                    parts = parts[:IOV_MAX]
                sent.extend(map(channel.sendmsg, (parts,), _NO_ANCILLARY, _NO_SIGNAL))
            if ahead is not None:
                self._send_ahead(ahead)
            if not counts and self._polling.begins():
                self._polling.ended(self._look(exchange))
                exchange.advance()
                if exchange.done:
                    return
            while True:
                flags = _ALL if exchange.is_certain else _SOME
                receive = map(channel.recvmsg_into, (exchange.spaces(PIECES),), _NO_BYTES, flags)
                counts.extend(map(_first, receive))
                if not counts[-1]:
                    raise ChannelEnded
                exchange.advance()
                if exchange.done:
                    return
                self._limit(deadline)
        except BlockingIOError:
            raise DeadlinePassed from None
        except OSError:
            raise ChannelEnded from None

    def _send_ahead(self, exchange: Exchange) -> None:
        # Never waits: a worker that cannot write its answer does not read either.
        sent = exchange.sent_counts
        try:
            while parts := exchange.outgoing:
                sent.extend(map(self.socket.sendmsg, (parts[:IOV_MAX],), _NO_ANCILLARY, _AT_ONCE))
        except BlockingIOError:
            return

    def _look(self, exchange: Exchange) -> bool:
        """Whether the reply begins to come within a moment; does not sleep."""
        spaces = (exchange.spaces(PIECES),)
        counts = exchange.received_counts
        receive = self.socket.recvmsg_into
        ends = time.monotonic_ns() + LONGEST_NS
        while True:
            try:
                counts.extend(map(_first, map(receive, spaces, _NO_BYTES, _NOW)))
            except BlockingIOError:
                if time.monotonic_ns() > ends:
                    return False
            else:
                if not counts[-1]:
                    raise ChannelEnded
                return True

    def has_ended(self) -> bool:
        """Look, without waiting, whether the other end is gone.

        A reply that nobody has read yet (of an interrupted call) does not hide the end.
        """
        return has_gone(self.socket)

    def stop(self) -> None:
        """Let a thread that waits on the socket go on; the descriptor stays."""
        shut_down(self.socket)

    def close(self) -> None:
        """Close the descriptor; the caller holds the model's turn."""
        self._finalizer()

    def close_descriptor(self) -> None:
        """Close a forked child's copy; the connection itself stays its parent's."""
        self.socket.close()

    def _limit(self, deadline: float | None) -> None:
        """Let the kernel keep the deadline. The values stay from call to call if they can: where
        every call has the same timeout, no system call is made here.
        """
        if deadline is None:
            wait = 0.0
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlinePassed
            if 0 <= self._wait - left <= SLACK * self._wait:
                return
            wait = min(math.ceil(left * 1000) / 1000, LONGEST)
        if wait == self._wait:
            return
        self._wait = math.nan  # an interruption must not leave one of them as nobody knows
        value = TIMEVAL.pack(int(wait), int(wait % 1 * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._wait = wait
