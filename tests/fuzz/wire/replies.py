"""Hostile replies: the streams that a worker may send for one request, and how they come."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription, TensorDescription
from model_loader_wire.frames import Entry
from model_loader_wire.strings import pack_strings
from tests.fuzz.wire.damage import damaged, json_bytes, number
from tests.fuzz.wire.drafts import Draft, mutated
from tests.fuzz.wire.reading import ANSWER, CAUSES, DONE, FAILURE

MOST = 1 << 20
"""The limit output_bytes of these models."""
AT_ONCE = 60_000
"""What a socket takes before anybody reads it."""
ENDLESS = 3 << 20
"""Where an endless stream is given up, far beyond what anybody may read of it."""


def tensor(
    name: str, data_type: DataType, dimensions: tuple[int | None, ...] | None, length: int | None
) -> TensorDescription:
    """Describe an output."""
    return TensorDescription(name, data_type, dimensions, length)


_X = tensor("x", DataType.FLOAT32, (1,), 4)
OUTPUTS: dict[str, tuple[TensorDescription, ...]] = {
    "one": (tensor("y", DataType.FLOAT32, (2, 3), 24),),
    "two": (tensor("a", DataType.INT8, (5,), 5), tensor("b", DataType.INT64, (), 8)),
    "none": (),
    "large": (tensor("y", DataType.UINT8, (3, 100_000), 300_000),),
    "empty": (tensor("y", DataType.FLOAT32, (3, 0, 2), 0),),
    "batch": (tensor("y", DataType.FLOAT32, (None, 3), None),),
    "any": (tensor("y", DataType.INT16, None, None), tensor("z", DataType.BOOL, (None,), None)),
    "strings": (tensor("y", DataType.STRING, (None,), None),),
    "raw": (tensor("y", DataType.UNKNOWN, None, None), tensor("z", DataType.UNKNOWN, (4,), 4)),
}
SIGNATURES = {name: SignatureDescription("", (_X,), outputs) for name, outputs in OUTPUTS.items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the worker sends for the first request on a channel, and how."""

    model: str
    """A name in `OUTPUTS`."""
    is_reset: bool
    data: bytes
    pieces: tuple[int, ...]
    """Lengths in which it goes, over and over; () sends it before the request comes."""
    ending: str
    """``end``, ``silence``, ``close`` (before the request), or ``endless``: the last byte again."""
    descriptors: int
    """How many descriptors come along, with each piece."""


def reply_for(random: Random) -> Reply:
    """Make the next hostile reply."""
    model = random.choice(list(OUTPUTS))
    is_reset = random.random() < 0.1
    draft = _draft(model, is_reset, random)
    data = draft.pack() if random.random() < 0.1 else mutated(draft, random)
    chance = random.random()
    if chance < 0.03:
        data = random.randbytes(random.choice((0, 1, 47, 48, 49, 500)))
    elif chance < 0.08:
        data = data[: random.randrange(len(data) + 1)]
    elif chance < 0.11:  # an old reply first, or the next one at once
        again = _draft(model, is_reset, random)
        again.sequence = random.choice((0, 1, 2, 2))
        data = random.choice((again.pack() + data, data + again.pack()))
    ending = random.choices(("end", "silence", "close", "endless"), (90, 3, 2, 5))[0]
    pieces: tuple[int, ...] = ()
    if len(data) > AT_ONCE or ending == "endless":
        pieces = (random.choice((1000, 16384, 70_000)),)
    elif random.random() < 0.05 and len(data) < 2000:
        pieces = random.choice(((1,), (7, 1), (48, 1), (47,), (49, 100)))
    descriptors = random.choice((0,) * 12 + (1, 3, 40))
    return Reply(model, is_reset, data, pieces, ending, descriptors)


def _draft(model: str, is_reset: bool, random: Random) -> Draft:
    """Draft a true reply to the first call."""
    if random.random() < 0.2:
        report: dict[str, object] = {
            "cause": random.choice([*sorted(CAUSES), "crashed", "forbidden"]),
            "message": "no",
            "limit": "",
            "value": 0,
            "maximum": 0,
        }
        true = random.random() < 0.3
        payload = json.dumps(report).encode() if true else json_bytes(report, random)
        return Draft(FAILURE, 1, payload=payload[: 80 << 10])
    if is_reset:
        return Draft(DONE, 1)
    entries, parts = [], []
    for output in OUTPUTS[model]:
        entry, part = _content(output, random)
        entries.append(entry)
        parts.append(part)
    draft = Draft.of(ANSWER, 1, entries, b"".join(parts))
    draft.queue_ns, draft.compute_ns = number(random), number(random)
    return draft


def _content(output: TensorDescription, random: Random) -> tuple[Entry, bytes]:
    sizes = output.dimensions
    if sizes is None:
        sizes = random.choice(((), (0,), (3,), (2, 1, 4), (1,) * 32))
    dimensions = tuple(
        random.choice((0, 1, 2, 5, 5000)) if size is None else size for size in sizes
    )
    count = 1
    for size in dimensions:
        count *= size
    if output.data_type is DataType.STRING:
        data = pack_strings([random.randbytes(random.randrange(4)) for _ in range(count)])
        if random.random() < 0.5:
            data = damaged(data, random)
    elif output.data_type is DataType.UNKNOWN:
        data = random.randbytes(4 if output.byte_length == 4 else random.randrange(20))
    else:
        data = random.randbytes(count * (output.data_type.element_size or 0))
    return Entry(output.data_type, dimensions, len(data)), data


class Sender:
    """Sends a reply on the worker's end of a channel: at once, or from a thread, piece by piece."""

    def __init__(self, channel: socket.socket, reply: Reply, null: int) -> None:
        self._channel = channel
        self._reply = reply
        self._rights: Sequence[tuple[int, int, bytes]] = ()
        if reply.descriptors:
            rights = struct.pack(f"{reply.descriptors}i", *[null] * reply.descriptors)
            self._rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Send what goes before the request; the rest follows by itself."""
        if self._reply.pieces:
            self._thread = threading.Thread(target=self._send_pieces)
            self._thread.start()
            return
        if self._reply.data:
            sent = self._channel.sendmsg([self._reply.data], self._rights)
            assert sent == len(self._reply.data)
        self._end()

    def finish(self) -> None:
        """Wait for the end of the sending; the client has closed its end."""
        if self._thread is not None:
            self._thread.join()
        self._channel.close()

    def _end(self) -> None:
        if self._reply.ending == "close":
            self._channel.close()
        elif self._reply.ending == "end":
            self._channel.shutdown(socket.SHUT_WR)

    def _send_pieces(self) -> None:
        data = memoryview(self._reply.data)
        turn = 0
        try:
            while data:
                piece = data[: self._reply.pieces[turn % len(self._reply.pieces)]]
                data = data[self._channel.sendmsg([piece], self._rights) :]
                turn += 1
                if len(piece) < 50:
                    time.sleep(0)  # the reader gets to see each piece
            if self._reply.ending == "endless":
                again = (self._reply.data[-1:] or b"\0") * 16384
                for _ in range(ENDLESS // len(again)):
                    self._channel.sendall(again)
            self._end()
        except OSError:
            return  # the client has hung up, as it should


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))
