"""One of the models of a host: its channel, and what is on its way in and out."""

from __future__ import annotations

import os
import select
import socket
from dataclasses import replace
from typing import Any

from loader_service.runtime.engine import LoadedModel
from loader_service.worker.answering import PARTS_AT_A_TIME, Answering
from loader_service.worker.assembly import Assembly
from loader_service.worker.failing import failure_of
from loader_service.worker.inbox import ChannelClosed
from loader_service.worker.orders import Go
from model_loader_wire.buffers import byte_view


class Guest(Answering):
    """A loaded model that is served in turns, and never waited for.

    It takes its next request only when its answer has gone: no more than one answer is ever
    pending, and that lies in the interpreter, which nothing touches until then.
    """

    def __init__(
        self,
        model: LoadedModel,
        channel: socket.socket,
        go: Go,
        scratch: memoryview,
    ) -> None:
        """Serve a model on a channel that does not block."""
        self._assembly = Assembly(channel, go.tensor_bytes, scratch)
        super().__init__(model, channel, self._assembly, go)
        self.memory_bytes = go.memory_bytes
        """The model's own part of the host's limit."""
        self._unsent: list[memoryview] = []

    @property
    def calls(self) -> int:
        """How many computations it has done."""
        return self._calls

    @property
    def awaits(self) -> int:
        """What to poll the channel for."""
        return select.POLLOUT if self._unsent else select.POLLIN

    def limit_memory(self, memory_bytes: int) -> None:
        """Note the limit that holds for all models of the host, for failures to tell."""
        self._go = replace(self._go, memory_bytes=memory_bytes)

    def turn(self) -> None:
        """Go on with what the channel is ready for; computes once at most.

        Raises ChannelClosed, or BadFrame for what is no request.
        """
        if self._unsent:
            self._send()
            return
        header = self._assembly.receive()
        if header is None:
            return
        if self._assembly.refused is not None:
            failure = failure_of(self._assembly.refused, self._go.memory_bytes)
            self._refuse(header, 0, failure)
        else:
            self._next()
        self._assembly.begin()

    def _write(self, parts: list[Any]) -> None:
        """Send what the channel takes; the rest is sent in later turns."""
        self._unsent = [view for view in map(byte_view, parts) if len(view)]
        self._send()

    def _send(self) -> None:
        try:
            count = os.writev(self._channel, self._unsent[:PARTS_AT_A_TIME])
        except BlockingIOError:
            return
        except ConnectionError:
            raise ChannelClosed from None
        gone = 0
        while gone < len(self._unsent) and count >= len(self._unsent[gone]):
            count -= len(self._unsent[gone])
            gone += 1
        del self._unsent[:gone]
        if count:
            self._unsent[0] = self._unsent[0][count:]
