"""Requests that come in pieces, from one of several channels: none of them is waited for."""

from __future__ import annotations

import socket

from loader_service.worker.inbox import ChannelClosed, Inbox
from model_loader_wire.frames import HEADER, BadFrame, Header, Kind, unpack_header

REQUESTS = (Kind.COMPUTE, Kind.RESET)


class Assembly(Inbox):
    """One channel's next request in a buffer of its own, to be read from there once it is whole.

    The buffer grows with the bytes that have come. What is not going to be read (inputs above the
    limit, inputs for which there is no memory) is received, so that the next request begins in its
    place, but not kept.
    """

    def __init__(self, channel: socket.socket, most: int, scratch: memoryview) -> None:
        """Assemble requests with at most `most` bytes of inputs; `scratch` may be shared."""
        self._channel = channel
        self._most = most
        self._scratch = scratch
        self.begin()

    def begin(self) -> None:
        """Forget the last request; what comes from now on is the next one."""
        self.refused: MemoryError | None = None
        """Why the inputs were not kept, if memory ran out."""
        self._header: Header | None = None
        self._bytes = bytearray()
        self._read = 0
        self._missing = HEADER.size
        self._unkept = 0

    def receive(self) -> Header | None:
        """Take in what has come, up to the scratch's length; returns the header of a whole request.

        Raises ChannelClosed, or BadFrame for what is no request.
        """
        budget = len(self._scratch)
        while budget:
            wanted = min(self._missing or self._unkept, budget)
            try:
                count = self._channel.recv_into(self._scratch[:wanted])
            except BlockingIOError:
                return None
            except ConnectionError:
                raise ChannelClosed from None
            if count == 0:
                raise ChannelClosed
            budget -= count
            if self._missing:
                self._keep(self._scratch[:count])
            else:
                self._unkept -= count
            if not self._missing and not self._unkept:
                return self._header
        return None

    def header(self) -> Header:
        """Return the header of the request, which is whole."""
        assert self._header is not None
        return self._header

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes."""
        self._read += count
        return memoryview(self._bytes)[self._read - count : self._read]

    def fill(self, place: memoryview) -> None:
        """Copy the next bytes to where they belong."""
        place[:] = self.take(len(place))

    def skip(self, count: int) -> None:
        """Do nothing: nobody reads the rest of this request."""

    def _keep(self, data: memoryview) -> None:
        self._missing -= len(data)
        try:
            self._bytes += data
        except MemoryError as error:
            self.refused = error
            self._unkept += self._missing
            self._missing = 0
            self._bytes = bytearray()
            return
        if self._header is None and not self._missing:
            self._expect(unpack_header(self._bytes))

    def _expect(self, header: Header) -> None:
        """Note what follows the header, which is not kept in the buffer."""
        if header.kind not in REQUESTS:
            raise BadFrame(f"a frame of kind {header.kind.name} is no request")
        self._header = header
        self._bytes = bytearray()
        self._missing, self._unkept = header.table_length, header.payload_length
        if header.kind is Kind.COMPUTE and header.payload_length <= self._most:
            self._missing += self._unkept
            self._unkept = 0
