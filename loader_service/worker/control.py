"""Messages on the control socket between broker and worker.

A message is a 32-bit little-endian length, one byte of kind, and that many bytes. Messages with
fields carry one JSON object. The worker sends few and small ones; the broker caps their length.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from enum import IntEnum

HEAD = struct.Struct("<IB")
PONG = struct.Struct("<QQ")
"""The ping's number, and how many computations the worker has done; one count a channel."""
NUMBER = struct.Struct("<I")
"""Which of a host's channels a message is about: all but GO, PING, READY and PONG begin so, to a
host and from it."""

LONGEST_FROM_WORKER = 1 << 20
"""Bytes: a description of some thousand tensors fits; most models need less than 30,000."""
LONGEST_DELEGATION = 256 << 10
"""Bytes of a report on devices that comes while the model runs."""
MOST_COMMAS = 1 << 16
"""In a message's fields: as many values make their reader busy for some hundredths of a second,
and nobody is served meanwhile. Counting commas costs next to nothing."""
FINISH_PAYLOAD = bytes(8)
COMPILED_HEAD = struct.Struct("<32sQ")
"""The key and the length of a compiled partition."""
COMPILED_LENGTH = struct.Struct("<Q")
COMPILED_PIECE = 512 << 10
"""Bytes of a compiled partition in one message of the worker's."""
MOST_ENTRIES = 16
"""How often a worker may ask for compiled partitions in one load, and how many it may offer."""
MODEL_PIECE = 1 << 20
"""Bytes of model in one message."""


class Message(IntEnum):
    """Kinds below 16 go to the worker, the others come from it.

    OPEN, CLOSE, CLOSED and GONE are only for hosts, which hold several models.
    """

    GO = 1
    MODEL = 2
    MODEL_END = 3
    PING = 4
    OPEN = 5
    """A model will come, with the fields of `Go` that concern it."""
    CLOSE = 6
    """Forget a model, however far it has come; answered with CLOSED, once it is forgotten."""
    FINISH = 7
    """End as soon as no answer has been begun; to a worker that serves. As long as a PING."""
    CACHED = 8
    """Answers WANTED: a length, which is 0 where nothing is kept, and then the bytes in pieces."""
    PARK = 9
    """Say PARKED and end, if the worker has computed so often (as long as a PING), and nothing of a
    request has been read."""
    READY = 16
    LOADED = 17
    INSPECTED = 18
    FAILED = 19
    PONG = 20
    CLOSED = 21
    DELEGATION = 23
    """Which device runs what has changed since LOADED; nobody asks for it."""
    GONE = 22
    """A model's client has gone or has sent what is no request, and the model is forgotten."""
    WANTED = 24
    """Asks for a compiled partition by its key, while the model loads."""
    COMPILED = 25
    """A compiled partition for keeping will come: its key and length."""
    COMPILED_PART = 26
    """The next bytes of it."""
    PARKED = 27
    """Answers PARK: the worker reads nothing more, and what is in the channel is another's."""


class BadMessage(ValueError):
    """Bytes on the control socket that are no message."""


def pack(kind: Message, payload: bytes | memoryview = b"") -> bytes:
    """Build a message."""
    return b"".join((HEAD.pack(len(payload), kind), payload))


def pack_fields(kind: Message, fields: Mapping[str, object], about: bytes = b"") -> bytes:
    """Build a message with fields; `about` is the number of a host's channel."""
    return pack(kind, about + json.dumps(fields).encode())


def unpack_head(data: bytes | bytearray | memoryview, longest: int) -> tuple[Message, int]:
    """Read kind and length; raises BadMessage for an unknown kind or too much length."""
    length, code = HEAD.unpack(data)
    try:
        kind = Message(code)
    except ValueError:
        raise BadMessage(f"there is no message of kind {code}") from None
    if length > longest:
        raise BadMessage(f"a message of {length} bytes is longer than {longest}")
    return kind, length


def unpack_fields(payload: bytes | bytearray) -> dict[str, object]:
    """Read a message's fields; raises BadMessage if they are no JSON object, or too many."""
    if payload.count(b",") > MOST_COMMAS:
        raise BadMessage("a message has too many fields")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        raise BadMessage("a message's fields cannot be read") from None
    if not isinstance(fields, dict):
        raise BadMessage("a message's fields are no object")
    return fields
