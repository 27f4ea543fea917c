"""A direct channel for an event loop.

The loop's own ``sock_recv_into`` may take bytes and then lose them when its task is cancelled. So
no task ever reads here: plain callbacks of the loop move the bytes, and a cancelled caller merely
stops waiting for them. The reader stays registered while the channel is idle, which makes the end
of a worker an event.
"""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from collections.abc import Callable

from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import BadFrame

from . import _fork
from ._blocking_channel import IOV_MAX
from ._effects import ChannelEnded, DeadlinePassed
from ._ends import shut_down

READS = 16
"""System calls that one channel makes before the loop may turn to others."""


class AsyncChannel:
    """Owns the socket; one exchange at a time (the model's turn)."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, channel: socket.socket, ended: Callable[[], None]
    ) -> None:
        channel.setblocking(False)
        self.socket = channel
        self._loop = loop
        self._descriptor = channel.fileno()
        self._exchange: Exchange | None = None
        self._ahead: Exchange | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._ended = weakref.WeakMethod(ended)
        # The loop must not keep a forgotten model alive.
        this = weakref.ref(self)
        loop.add_reader(self._descriptor, _call, this, AsyncChannel._readable)
        self._finalizer = weakref.finalize(self, _close_later, loop, channel, self._descriptor)
        _fork.close_in_child(self)

    async def run(
        self, exchange: Exchange, deadline: float | None, ahead: Exchange | None = None
    ) -> None:
        """Wait until the exchange is done; starts it if it is not under way.

        Of `ahead`, the one after it, what the channel takes at once is sent meanwhile; once it has
        begun it goes on by itself.
        """
        if exchange.done and not exchange.unsent:
            return
        if ahead is not None:
            self._ahead = ahead
        if self._fault is None and exchange is not self._exchange:
            self._exchange = exchange
            self._writable()
        elif ahead is not None and not exchange.unsent:
            self._send_ahead()
        if self._fault is not None:
            raise self._fault
        if self._exchange is None:
            return
        self._waiter = self._loop.create_future()
        clock = None
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            clock = self._loop.call_later(left, _fail, self._waiter, DeadlinePassed())
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._ahead is not None and not self._ahead.sent_counts:
                self._ahead = None  # nobody may be there who would want it
            if clock is not None:
                clock.cancel()

    def has_ended(self) -> bool:
        """Whether the other end is gone, as far as the loop has seen."""
        return self._fault is not None

    def stop(self) -> None:
        """Wake the waiting call; the descriptor stays."""
        shut_down(self.socket)

    def close(self) -> None:
        """Close the descriptor."""
        if self._finalizer.detach() is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        self.socket.close()
        self._set_fault(ChannelEnded())

    def close_descriptor(self) -> None:
        """Close a forked child's copy. The selector is shared with the parent: left alone."""
        self._finalizer.detach()
        self.socket.close()

    def _writable(self) -> None:
        exchange = self._exchange
        try:
            while exchange is not None and exchange.unsent:
                parts = exchange.outgoing[:IOV_MAX]
                exchange.sent(self.socket.sendmsg(parts, (), socket.MSG_NOSIGNAL))
        except BlockingIOError:
            self._loop.add_writer(
                self._descriptor, _call, weakref.ref(self), AsyncChannel._writable
            )
            return
        except OSError:
            self._set_fault(ChannelEnded())
            return
        self._loop.remove_writer(self._descriptor)
        self._send_ahead()
        self._settle()

    def _send_ahead(self) -> None:
        # Not more than is taken at once: a worker that cannot write its answer does not read.
        ahead = self._ahead
        try:
            while ahead is not None and ahead.unsent:
                parts = ahead.outgoing[:IOV_MAX]
                ahead.sent(self.socket.sendmsg(parts, (), socket.MSG_NOSIGNAL))
        except BlockingIOError:
            return
        except OSError:
            self._set_fault(ChannelEnded())

    def _readable(self) -> None:
        try:
            for _ in range(READS):
                exchange = self._exchange
                if exchange is None or exchange.done:
                    self._look()
                    return
                count = self.socket.recv_into(exchange.space())
                if not count:
                    self._set_fault(ChannelEnded())
                    return
                exchange.received(count)
                if exchange.done:
                    self._settle()
                    return
        except BlockingIOError:
            return
        except BadFrame as fault:
            self._set_fault(fault)
        except OSError:
            self._set_fault(ChannelEnded())
        except Exception as fault:  # no memory for an answer, for example
            self._set_fault(fault)

    def _look(self) -> None:
        """Something came although nothing was asked for: the end, or a violation."""
        data = self.socket.recv(1, socket.MSG_PEEK)
        self._set_fault(BadFrame("bytes came that nobody asked for") if data else ChannelEnded())

    def _settle(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.done and not exchange.unsent:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            self._exchange, ahead, self._ahead = None, self._ahead, None
            if ahead is not None and ahead.sent_counts:
                self._exchange = ahead
                self._writable()

    def _set_fault(self, fault: Exception) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        if self.socket.fileno() != -1 and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        if self._waiter is not None:
            _fail(self._waiter, fault)
            return
        ended = self._ended()
        if ended is not None:
            ended()


def _call(this: weakref.ref[AsyncChannel], method: Callable[[AsyncChannel], None]) -> None:
    channel = this()
    if channel is not None:
        method(channel)


def _fail(waiter: asyncio.Future[None], fault: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(fault)


def _close_later(loop: asyncio.AbstractEventLoop, channel: socket.socket, descriptor: int) -> None:
    """Close a forgotten channel; this may be called in any thread, at any time."""

    def close() -> None:
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)
        channel.close()

    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # the loop is closed
        channel.close()
