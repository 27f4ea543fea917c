"""Reading frames from the channel: small ones in one system call, large ones in place."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic_ns

from model_loader_wire.frames import HEADER, Header, unpack_header


class ChannelClosed(Exception):
    """The client has gone: the model is not needed any more."""


class Inbox:
    """Buffered reading from the channel; `idle` runs when a quarter of a second brought nothing.

    So does `between`, instead, while nothing of the next frame has been read.
    """

    SIZE = 64 << 10
    """Bytes of buffer; what is larger is read straight to where it belongs."""

    def __init__(
        self,
        channel: socket.socket,
        idle: Callable[[], None],
        between: Callable[[], None] | None = None,
    ) -> None:
        self.idle = idle
        self.between = between or idle
        self._channel = channel
        self._usual = self._buffer = memoryview(bytearray(self.SIZE))
        self._start = self._end = 0

    @property
    def is_empty(self) -> bool:
        """Whether the next byte to be read is still in the channel."""
        return self._start == self._end

    def header(self) -> Header:
        """Read the next frame's header; raises ChannelClosed, or BadFrame for other bytes."""
        if self.is_empty:
            self._end = self._receive(self._buffer, idle=self.between)
        return unpack_header(self.take(HEADER.size))

    def take(self, count: int) -> memoryview:
        """Read `count` bytes; the view is valid until the next call. Long ones are copied."""
        if count > self.SIZE:
            data = memoryview(bytearray(count))
            self.fill(data)
            return data
        if self._end - self._start < count:
            if self._start:
                kept = bytes(self._buffer[self._start : self._end])
                self._buffer[: len(kept)] = kept
                self._start, self._end = 0, len(kept)
            while self._end < count:
                self._end += self._receive(self._buffer[self._end :])
        data = self._buffer[self._start : self._start + count]
        self._forget(count)
        return data

    def fill(self, place: memoryview) -> None:
        """Read exactly as many bytes as `place` holds, straight into it."""
        early = min(self._end - self._start, len(place))
        if early:
            place[:early] = self._buffer[self._start : self._start + early]
            self._forget(early)
            place = place[early:]
        while len(place):
            count = self._receive(place, socket.MSG_WAITALL)
            if count == len(place):
                return
            place = place[count:]
            self.idle()  # the wait for the rest has lasted a quarter of a second

    def skip(self, count: int) -> None:
        """Read `count` bytes and forget them."""
        while count:
            piece = min(count, self.SIZE)
            self.take(piece)
            count -= piece

    def look(self, place: bytearray, longest_ns: int) -> int:
        """Read what comes in so many nanoseconds, without sleeping; 0 if nothing does.

        The inbox is empty. At most as much as `place` holds is read.
        """
        ends = monotonic_ns() + longest_ns
        receive = self._channel.recv_into
        while True:
            try:
                count = receive(place, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if monotonic_ns() > ends:
                    return 0
            except ConnectionError:
                raise ChannelClosed from None
            else:
                if count == 0:
                    raise ChannelClosed
                return count

    def put_back(self, data: bytes) -> None:
        """Let bytes be read again that came before all others; the inbox is empty."""
        if len(data) > self.SIZE:
            self._buffer = memoryview(bytearray(data))
        else:
            self._buffer[: len(data)] = data
        self._start, self._end = 0, len(data)

    def _forget(self, count: int) -> None:
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0
            self._buffer = self._usual

    def _receive(
        self, place: memoryview, flags: int = 0, idle: Callable[[], None] | None = None
    ) -> int:
        while True:
            try:
                count = self._channel.recv_into(place, 0, flags)
            except BlockingIOError:
                (idle or self.idle)()
                continue
            except ConnectionError:
                raise ChannelClosed from None
            if count == 0:
                raise ChannelClosed
            return count
