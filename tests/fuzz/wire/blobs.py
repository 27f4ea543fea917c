"""What a loading worker says of compiled partitions, and what is due for it.

The reading shares no code with the broker: whole streams, no I/O. Source: the messages' words in
``loader_service/worker/control.py``.
"""

from __future__ import annotations

import json
from random import Random
from struct import pack, unpack, unpack_from
from typing import NamedTuple

from model_loader_wire.description import model_to_values
from tests.fuzz.wire.damage import damaged, number
from tests.fuzz.wire.targets import MODEL

KNOWN = {*range(1, 10), *range(16, 28)}
CACHED, READY, LOADED, FAILED = 8, 16, 17, 19
SAID = {16, LOADED, 18, FAILED, 21, 22, 23, 27}
"""Kinds that a load waits for, and of which it expects one only."""
WANTED, COMPILED, PART = 24, 25, 26
LONGEST, PIECE, MOST = 1 << 20, 512 << 10, 16
KEYS = tuple(bytes([letter]) * 32 for letter in b"abcd")
DESCRIPTION = json.dumps(model_to_values(MODEL)).encode()
FAILURE = json.dumps(
    {"cause": "limit", "message": "no", "limit": "memory_bytes", "value": 2, "maximum": 1}
).encode()


class Due(NamedTuple):
    """What is due for a stream."""

    questions: list[bytes]
    """Keys that were asked for, in this order; each gets an answer."""
    more: list[bytes]
    """Keys of questions after the worker has said that it is done, which may get one."""
    kept: list[tuple[bytes, bytes]]
    """Keys and the blobs that came whole."""
    end: str
    """``loaded``, ``failed``, ``violation``, or ``any`` of them."""


def message(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Write a message."""
    return pack("<IB", len(payload) if length is None else length, kind) + payload


def offer(key: bytes, blob: bytes, piece: int = PIECE, announced: int | None = None) -> list[bytes]:
    """Write the messages that give a blob, in pieces of a size that may be wrong."""
    head = pack("<32sQ", key, len(blob) if announced is None else announced)
    parts = [blob[start : start + piece] for start in range(0, len(blob), piece)]
    return [message(COMPILED, head), *(message(PART, part) for part in parts)]


def blob_of(random: Random, longest: int) -> bytes:
    """Make a blob of at most so many bytes, unlike all others."""
    some = (1, 31, 32, 5000, PIECE - 1, PIECE, PIECE + 1, longest - 1, longest)
    size = random.choice([size for size in some if 0 < size <= longest])
    own = random.randbytes(16)
    return (own * (size // 16 + 1))[:size]


def many_offers(random: Random) -> list[bytes]:
    """Give as many small blobs as one may, each with a key of its own."""
    return [one for _ in range(MOST) for one in offer(random.randbytes(32), b"x")]


def conversation(random: Random, longest: int) -> list[bytes]:
    """What a worker says after it has its model: true words, or others."""
    words: list[bytes] = []
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        key = random.choice(KEYS)
        if random.random() < 0.5:
            words.append(message(WANTED, key))
        else:
            words += offer(key, blob_of(random, longest))
    if random.random() < 0.6:
        words = _otherwise(words, random, longest)
    end = random.choices((LOADED, FAILED, None), (80, 10, 10))[0]
    if end is not None:
        words.append(message(end, DESCRIPTION if end == LOADED else FAILURE))
        if random.random() < 0.05:
            words += [message(WANTED, KEYS[0]), *offer(KEYS[1], b"late")]
    return words


def _otherwise(words: list[bytes], random: Random, longest: int) -> list[bytes]:
    """Break a rule, or the limits of what is asked and given."""
    key = random.choice(KEYS)
    blob = blob_of(random, longest)
    place = random.randrange(len(words) + 1)
    some: list[bytes]
    match random.randrange(14):
        case 0:  # too many questions, or just as many as there may be
            some = [message(WANTED, key)] * random.choice((16, 17, 40))
        case 1:  # too many entries, most of them small
            some = [one for _ in range(random.choice((16, 17))) for one in offer(key, b"x")]
        case 2:  # entries of many keys
            some = many_offers(random)
        case 3:  # pieces of another size
            blob = blob[:200_000]
            some = offer(key, blob, random.choice((1, 2, 7, 1000, PIECE - 1, PIECE + 1)))
        case 4:  # another length than announced
            wrong = random.choice((0, longest + 1, 2**63, 2**64 - 1, len(blob) - 1, len(blob) + 1))
            some = offer(key, blob, announced=wrong)
        case 5:
            some = offer(key, blob, announced=number(random))
        case 6:  # an entry that does not end
            some = offer(key, blob)[: -1 or None]
        case 7:  # within another one
            some = offer(key, blob)
            other = random.choice((message(WANTED, key), *offer(KEYS[0], b"y")))
            some.insert(random.randrange(len(some)), other)
        case 8:  # a key of another size
            size = random.choice((0, 1, 31, 33, 40, 5000))
            kind = random.choice((WANTED, COMPILED))
            some = [message(kind, random.randbytes(size))]
        case 9:  # pieces of nothing
            some = [message(PART, blob[: random.choice((0, 1, 5000))])]
        case 10:  # any message, or none
            kind = random.choice((*KNOWN, 0, 10, 15, 28, 255))
            some = [message(kind, random.randbytes(random.choice((0, 8, 16, 32, 40))))]
        case 11:  # a length that lies
            size = random.choice((0, 31, 33, LONGEST, LONGEST + 1, 2**31, 2**32 - 1))
            some = [message(random.choice((WANTED, COMPILED, PART)), key, size)]
        case 12:
            random.shuffle(words)
            some = []
        case _:
            spot = random.randrange(len(words))
            words[spot] = damaged(words[spot], random)
            some = []
    return words[:place] + some + words[place:]


def due(stream: bytes, longest: int) -> Due:
    """Say what is due for these bytes, which end with the stream."""
    questions: list[bytes] = []
    more: list[bytes] = []
    kept: list[tuple[bytes, bytes]] = []
    end, key, blob, missing, place = "", b"", b"", 0, 0
    asked = given = 0
    while len(stream) - place >= 5:
        length, kind = unpack_from("<IB", stream, place)
        payload = stream[place + 5 : place + 5 + length]
        fits = kind in KNOWN and length <= LONGEST
        if fits and len(payload) < length:
            break  # its end never comes
        place += 5 + length
        if fits and kind == WANTED:
            asked += 1
            fits = length == 32 and asked <= MOST and not missing
            if fits:
                (more if end else questions).append(payload)
        elif fits and kind == COMPILED:
            given += 1
            fits = length == 40 and given <= MOST and not missing
            if fits:
                key, missing = unpack("<32sQ", payload)
                blob = b""
                fits = 0 < missing <= longest
        elif fits and kind == PART:
            fits = 0 < length == min(missing, PIECE)
            missing -= length
            blob += payload
            if fits and not missing:
                kept.append((key, blob))
        elif fits and kind in SAID:
            # What comes after the first of these may be taken in, or not any more.
            right = {LOADED: ("loaded", DESCRIPTION), FAILED: ("failed", FAILURE)}
            word, expected = right.get(kind, ("violation", payload))
            end = end or (word if payload == expected else "any")
        else:
            fits = False
        if not fits:
            break
    return Due(questions, more, kept, end or "violation")


def answers(stream: bytes) -> list[bytes]:
    """Read what the broker has said: GO, MODEL_END, and blobs, of which the last may be cut off.

    Raises AssertionError for anything else.
    """
    found: list[bytes] = []
    place = missing = 0
    parts: list[bytes] = []
    while len(stream) - place >= 5:
        length, kind = unpack_from("<IB", stream, place)
        payload = stream[place + 5 : place + 5 + length]
        if len(payload) < length:
            break
        place += 5 + length
        if kind in (1, 3) and not found and not missing:
            continue
        assert kind == CACHED, f"a message of kind {kind} came"
        if not missing:
            assert length == 8, f"the length of an answer has {length} bytes"
            (missing,) = unpack("<Q", payload)
        else:
            assert 0 < length <= min(missing, 1 << 20), f"a piece of {length} bytes came"
            missing -= length
            parts.append(payload)
        if not missing:
            found.append(b"".join(parts))
            parts = []
    return found
