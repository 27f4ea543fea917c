"""The steady path of a call: the request that came last, expected again.

One ``readv`` takes the header, the table and the tensors, these straight into the interpreter's
memory; one ``writev`` sends the answer out of it. Where requests follow each other closely, the
worker looks for the next head before it sleeps (see ``model_loader_wire.polling``). The head is
compared, not parsed. Whatever differs from the expected goes back to the inbox, and is looked at
there with all the care of the first request; so this path decides nothing that the other one has
not decided before.
"""

from __future__ import annotations

import os
import struct
from time import monotonic_ns
from typing import Any

from loader_service.runtime.engine import SteadyRun
from loader_service.worker.inbox import ChannelClosed, Inbox
from model_loader_wire.polling import LONGEST_NS, Polling

SEQUENCE = slice(8, 16)
"""Where a header holds its sequence number; see ``proto/CHANNEL.md``."""
TIMES = struct.Struct("<QQ")
TIMES_PLACE = 24
Buffers = list[Any]


class SteadyCall:
    """One head of request that is expected, and the head of its answer.

    ``head``: the head of the request that was received last, as it came.
    """

    def __init__(
        self,
        run: SteadyRun,
        channel: int,
        inbox: Inbox,
        polling: Polling,
        *,
        request_head: bytes,
        request_length: int,
        answer_head: bytes,
        answer_length: int,
    ) -> None:
        """Expect requests with that head (header and table); the lengths are of the payloads."""
        self.run = run.run
        self.head = bytearray(request_head)
        self.answer_length = len(answer_head) + answer_length
        self._inputs = run.inputs
        self._outputs = run.outputs
        self._channel = channel
        self._inbox = inbox
        self._expected = bytearray(request_head)
        self._request_length = len(request_head) + request_length
        self._answer = bytearray(answer_head)
        self._polling = polling

    def receive(self) -> int:
        """Read the next request into its place; returns when its head came (`monotonic_ns`).

        0 if it is another request: what came of it is in the inbox, and this object must not be
        used again. Raises ChannelClosed.
        """
        head = self.head
        parts = [head, *self._inputs()]
        count = 0
        if self._polling.begins():
            count = self._inbox.look(head, LONGEST_NS)
            self._polling.ended(count > 0)
        while count == 0:
            try:
                count = os.readv(self._channel, parts)
            except BlockingIOError:
                self._inbox.between()
            except ConnectionError:
                raise ChannelClosed from None
            else:
                if count == 0:
                    raise ChannelClosed
        began = monotonic_ns()
        expected = self._expected
        expected[SEQUENCE] = head[SEQUENCE]
        if count < len(head) or head != expected:
            self._inbox.put_back(b"".join(_first_bytes(parts, count)))
            return 0
        if count < self._request_length:
            self._receive_rest(parts, count)
        return began

    def answer(self, queue_ns: int, compute_ns: int) -> Buffers | None:
        """Return the answer's parts after ``run``, or None if its shapes are new."""
        outputs = self._outputs()
        if outputs is None:
            return None
        head = self._answer
        head[SEQUENCE] = self.head[SEQUENCE]
        TIMES.pack_into(head, TIMES_PLACE, queue_ns, compute_ns)
        return [head, *outputs]

    def _receive_rest(self, parts: Buffers, count: int) -> None:
        for part in parts:
            view = memoryview(part).cast("B")
            if count < len(view):
                self._inbox.fill(view[count:])
                count = 0
            else:
                count -= len(view)


def _first_bytes(parts: Buffers, count: int) -> list[memoryview]:
    """Return the first `count` bytes of some buffers."""
    pieces = []
    for part in parts:
        if count <= 0:
            break
        view = memoryview(part).cast("B")[:count]
        pieces.append(view)
        count -= len(view)
    return pieces
