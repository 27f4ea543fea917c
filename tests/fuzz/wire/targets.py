"""The pure readers of the wire as fuzz targets: bytes in, a value or a declared error out.

Each target raises only for a fault. A coverage-guided fuzzer calls them with bytes of its own;
``decoding`` drives them with damaged examples.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from random import Random
from time import monotonic

from loader_service.broker.messages import description_to_message
from loader_service.worker.control import BadMessage, unpack_fields, unpack_head
from model_loader._messages import description_from
from model_loader_wire.causes import MESSAGE_LENGTH, Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    BadDescription,
    ModelDescription,
    SignatureDescription,
    TensorDescription,
    model_from_values,
    model_to_values,
)
from model_loader_wire.exchange import GROWTH, Exchange
from model_loader_wire.frames import (
    HEADER,
    TABLE_LENGTH,
    BadFrame,
    Entry,
    Kind,
    pack_failure,
    pack_header,
    pack_table,
    unpack_failure,
    unpack_header,
    unpack_table,
)
from model_loader_wire.strings import BadStrings, pack_strings, unpack_strings
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import damaged, json_bytes

LONGEST_ESCAPE = 10
"""``printable`` writes one character as at most so many."""
MOST = 1 << 20
ENTRIES = (
    Entry(DataType.FLOAT32, (2, 3), 24),
    Entry(DataType.STRING, (2,), 18),
    Entry(DataType.INT8, (), 1),
)
PAYLOAD = bytes(24) + pack_strings([b"a", b"b"]) + b"\1"


def header(data: bytes) -> str:
    """Read a frame's header; what is read must be written the same way."""
    if len(data) < HEADER.size:
        return "too short"
    try:
        read = unpack_header(data)
    except BadFrame:
        return "refused"
    again = pack_header(
        read.kind,
        read.sequence,
        signature=read.signature,
        payload_length=read.payload_length,
        table_length=read.table_length,
        tensors=read.tensors,
        queue_ns=read.queue_ns,
        compute_ns=read.compute_ns,
    )
    assert again[:46] == data[:46]
    assert read.table_length <= TABLE_LENGTH
    return "read"


def table(data: bytes) -> str:
    """Read a table; its first bytes say how many tensors and how much payload there are."""
    tensors, payload_length = int.from_bytes(data[:1]), int.from_bytes(data[1:5], "little")
    try:
        entries = unpack_table(data[5:], tensors, payload_length)
    except BadFrame:
        return "refused"
    assert len(entries) == tensors
    assert sum(entry.byte_length for entry in entries) == payload_length
    assert unpack_table(pack_table(entries), tensors, payload_length) == entries
    return "read"


def strings(data: bytes) -> str:
    """Read a string tensor; its first byte is the number of elements that is expected."""
    try:
        values = unpack_strings(data[1:], int.from_bytes(data[:1]))
    except BadStrings:
        return "refused"
    assert pack_strings(values) == data[1:]
    return "read"


def failure(data: bytes) -> str:
    """Read the payload of a FAILURE."""
    try:
        read = unpack_failure(data)
    except BadFrame:
        return "refused"
    assert len(read.message) <= MESSAGE_LENGTH * LONGEST_ESCAPE
    assert "\x1b" not in read.message + read.limit
    return "read"


def description(data: bytes) -> str:
    """Read a declaration as the broker does, hand it on as the broker does, read that as a client.

    Nothing is lost on the way, and whatever is read can be handed on.
    """
    try:
        values = unpack_fields(data)
        read = model_from_values(values)
    except (BadMessage, BadDescription):
        return "refused"
    assert model_from_values(model_to_values(read)) == read
    message = description_to_message(read)
    assert description_from(type(message).FromString(message.SerializeToString())) == read
    return "read"


def control_head(data: bytes) -> str:
    """Read the head of a message on the control socket."""
    if len(data) < 5:
        return "too short"
    try:
        _, length = unpack_head(data[:5], 1000)
    except BadMessage:
        return "refused"
    assert length <= 1000
    return "read"


def exchange(data: bytes) -> str:
    """Take in a reply; the first byte says in pieces of which size it comes.

    Memory is what has come, what may be asked for ahead of it, and one table.
    """
    step = 1 + int.from_bytes(data[:1])
    stream = memoryview(data)[1:]
    reply = Exchange(Kind.COMPUTE, 7, most=MOST)
    reply.sent(reply.unsent)
    base = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    try:
        while not reply.done:
            piece = stream[: min(step, len(reply.space()))]
            if not piece:
                return "unfinished"
            reply.space()[: len(piece)] = piece
            stream = stream[len(piece) :]
            reply.received(len(piece))
    except BadFrame:
        return "refused"
    finally:
        if tracemalloc.is_tracing():
            more = tracemalloc.get_traced_memory()[1] - base
            assert more <= 4 * len(data) + GROWTH + TABLE_LENGTH + (256 << 10), more
    if reply.failure is not None:
        return "a failure"
    assert sum(len(tensor) for tensor in reply.tensors) == sum(
        entry.byte_length for entry in reply.entries
    )
    return "an answer"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "frame header": header,
    "frame table": table,
    "string tensor": strings,
    "failure report": failure,
    "description": description,
    "control message": control_head,
    "reply": exchange,
}

_TENSORS = (
    TensorDescription("x", DataType.FLOAT32, (2, 3), 24),
    TensorDescription("text", DataType.STRING, None, None),
    TensorDescription("dynamic", DataType.INT64, (None, 2), None),
    TensorDescription("raw", DataType.UNKNOWN, (5,), 5),
)
MODEL = ModelDescription(
    (
        SignatureDescription("", _TENSORS[:1], _TENSORS[1:]),
        SignatureDescription("named", _TENSORS, _TENSORS[:2]),
    ),
    "litert 2.3.0",
    "xnnpack",
    threads=2,
)
_TABLE = pack_table(ENTRIES)
_ANSWER = (
    pack_header(
        Kind.ANSWER, 7, payload_length=len(PAYLOAD), table_length=len(_TABLE), tensors=len(ENTRIES)
    )
    + _TABLE
    + PAYLOAD
)
_FAILURE = Failure(Cause.LIMIT, "too much", "output_bytes", 2e9, 1e9)
_REPORT = pack_failure(_FAILURE)
EXAMPLES: dict[str, tuple[bytes, ...]] = {
    "frame header": (_ANSWER[: HEADER.size], pack_header(Kind.RESET, 2**64 - 1)),
    "frame table": (b"\3" + len(PAYLOAD).to_bytes(4, "little") + _TABLE, bytes(5)),
    "string tensor": (b"\2" + pack_strings([b"hi", b""]), b"\0" + pack_strings([])),
    "failure report": (_REPORT,),
    "description": (json.dumps(model_to_values(MODEL)).encode(),),
    "control message": (b"\0\0\0\0\x10", b"\xe7\3\0\0\x11"),
    "reply": (
        b"\0" + _ANSWER,
        b"\xff" + _ANSWER,
        b"\x20" + pack_header(Kind.FAILURE, 7, payload_length=len(_REPORT)) + _REPORT,
    ),
}
"""Good inputs of each target, to begin with."""


def decoding(seed: int, count: int, seconds: float | None = None) -> Table:
    """Drive every target in turn with damaged examples."""
    result = Table("Readers of the wire, without any process")
    began = monotonic()
    names = sorted(TARGETS)
    tracemalloc.start()
    try:
        for item in numbered(count, seconds):
            random = Random(f"decoding {seed} {item}")
            name = names[item % len(names)]
            data = _input(name, random)
            tracemalloc.reset_peak()
            try:
                result.count(f"{name}: {TARGETS[name](data)}")
            except Exception as error:
                result.count(f"{name}: a fault")
                result.find(f"{name}: {type(error).__name__}: {error} for {data[:400].hex()}")
    finally:
        tracemalloc.stop()
    result.seconds = monotonic() - began
    return result


def _input(name: str, random: Random) -> bytes:
    if name == "description":
        return json_bytes(model_to_values(MODEL), random)
    if name == "failure report":
        return json_bytes(json.loads(_REPORT), random)
    return damaged(random.choice(EXAMPLES[name]), random)
