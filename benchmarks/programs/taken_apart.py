"""The direct arm with each call taken apart: `python -m benchmarks.programs.taken_apart JSON`.

Takes the same JSON as `model_loader_cli.bench.arm`, and gives each block three more lists of
nanoseconds, a value a call: `send`, from the call's begin until the kernel has taken the last byte
of the request (client's clock); `queue` and `compute`, what the worker's reply says of reading the
inputs and of its own invoke. What is left of a call, `ns - send - compute`, is the reply: waking
the worker, its Python, its writing, waking the client, reading the answer. Where a request is
larger than the socket's buffer, the worker reads while the client sends: `queue` overlaps `send`.
Where the worker runs at once on the client's core, `send` ends late and overlaps `compute`, too.

The watch costs the call about two microseconds, so no other figure is taken from this arm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

from model_loader_cli.bench.arms import Order, direct
from model_loader_cli.bench.blocks import conditions_of, measure, warm_up
from model_loader_wire.frames import HEADER, unpack_header


class Watch:
    """Stands between the client's channel and its socket, and notes what passes."""

    def __init__(self, channel: Any) -> None:
        self._socket = channel.socket
        self._head: bytes | None = None
        self._sent_at = 0
        self.send: list[int] = []
        self.queue: list[int] = []
        self.compute: list[int] = []
        channel.socket = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendmsg(self, *arguments: Any) -> int:
        """Send, and note when the kernel had taken it."""
        count: int = self._socket.sendmsg(*arguments)
        self._sent_at = perf_counter_ns()
        return count

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        """Receive; the first bytes of an answer are its header."""
        count: int = self._socket.recv_into(buffer, *arguments)
        self._note([buffer], count)
        return count

    def recvmsg_into(self, buffers: Sequence[Any], *arguments: Any) -> Any:
        """As `recv_into`, into several buffers."""
        result = self._socket.recvmsg_into(buffers, *arguments)
        self._note(buffers, result[0])
        return result

    def _note(self, buffers: Sequence[Any], count: int) -> None:
        if self._head is None and count >= HEADER.size:
            self._head = bytes(memoryview(buffers[0]).cast("B")[: HEADER.size])

    def around(self, call: Any) -> Any:
        """Return the call with its parts noted; raises RuntimeError if none was seen."""

        def watched() -> None:
            self._head, self._sent_at = None, 0
            began = perf_counter_ns()
            call()
            if self._head is None or not self._sent_at:
                raise RuntimeError("the call did not pass through the channel's socket")
            header = unpack_header(self._head)
            self.send.append(self._sent_at - began)
            self.queue.append(header.queue_ns)
            self.compute.append(header.compute_ns)

        return watched


def main(text: str) -> dict[str, Any]:
    """Open the arm, warm it up, and run all conditions."""
    given = json.loads(text)
    opened = direct(Order(**given["order"]))
    try:
        watch = Watch(opened.model._core.channel)
        call = watch.around(opened.call)
        warm_up(call)
        result = {}
        for condition in conditions_of(given["conditions"]):
            blocks = []
            watch.send, watch.queue, watch.compute = [], [], []
            for number, block in enumerate(measure(call, condition)):
                part = slice(number * condition.calls, (number + 1) * condition.calls)
                blocks.append(
                    block
                    | {
                        "send": watch.send[part],
                        "queue": watch.queue[part],
                        "compute": watch.compute[part],
                    }
                )
            result[condition.name] = blocks
        return {"blocks": result}
    finally:
        opened.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
