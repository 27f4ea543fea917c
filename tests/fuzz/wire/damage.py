"""Damaging bytes, JSON and numbers: what all fuzzers of the wire share."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 16, 48, 127, 128, 255, 256, 1023, 4096, 65535, 65536),
    *(1 << 20, (1 << 20) + 1, 1 << 24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48),
    *(2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
"""Numbers at which something changes, none below 0."""
TEXTS = (
    "",
    "x" * 70_000,
    "\x1b]0;title\x07\x1b[2J",
    "line\r\nline\0",
    "\ud800",
    "\u202e\u2066\ufeff",
    "né 🙂",
    "%s %n {0} ${x}",
    "../../etc/passwd",
)
BAD_JSON = (
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"a":' * 3000,
    b"[" * 3000,
    b"[" * 900 + b"]" * 900,
    b"NaN",
    b'{"value": 1' + b"0" * 5000 + b"}",
    b"\xff\xfe{\0",
    b"\xef\xbb\xbf{}",
)


def number(random: Random, below: int = 2**64) -> int:
    """Choose a number from 0 to `below` - 1, near where something changes."""
    return (random.choice(NUMBERS) + random.choice((0, 0, 0, 1, -1))) % below


def damaged(data: bytes, random: Random) -> bytes:
    """Damage bytes in one to four places: flips, numbers, cuts, repeats, insertions."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(_DAMAGES)(data, random)
    return data


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return random.randbytes(4)
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def _write_number(data: bytes, random: Random) -> bytes:
    size = random.choice((1, 2, 4, 8))
    place = random.randrange(len(data) + 1)
    value = number(random, 1 << 8 * size).to_bytes(size, "little")
    return data[:place] + value + data[place + size :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _take_out(data: bytes, random: Random) -> bytes:
    begin, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:begin] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    begin, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[begin:end][:4096] * random.choice((1, 1, 2, 20)) + data[end:]


def _insert(data: bytes, random: Random) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.choice((1, 2, 8, 48, 300))) + data[place:]


_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_flip, _flip, _write_number, _write_number),
    *(_cut, _take_out, _repeat, _insert),
)


def strange_value(random: Random) -> object:
    """Choose a JSON value that its reader may not expect."""
    match random.randrange(9):
        case 0:
            return number(random) * random.choice((1, -1))
        case 1:
            return random.choice((10**400, 1.5, -0.0, float("inf"), float("nan"), 1e308))
        case 2:
            return random.choice(TEXTS)
        case 3:
            return random.choice((None, True, False))
        case 4:
            return random.choice(([], {}, [[]], {"": {}}))
        case 5:
            return [number(random, 2**63) for _ in range(random.choice((1, 33, 40)))]
        case 6:
            return [0, 2**62, 2**62]
        case 7:
            deep: object = []
            for _ in range(random.choice((50, 400, 700))):
                deep = [deep] if random.random() < 0.5 else {"a": deep}
            return deep
        case _:
            return "x" * random.choice((1, 64, 1024, 1025, 5000))


def damaged_fields(values: object, random: Random) -> object:
    """Change some places of a JSON value: drop, replace, repeat. The value itself stays."""
    copy = json.loads(json.dumps(values))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holders: list[Any] = []
        _holders(copy, holders)
        if not holders:
            return strange_value(random)
        holder = random.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = random.choice(keys)
        match random.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder += [holder[key]] * random.choice((1, 40, 300))
            case 2 if isinstance(holder, dict):
                holder[str(strange_value(random))[:2000]] = holder[str(key)]
            case _:
                holder[key] = strange_value(random)
    return copy


def _holders(value: object, found: list[Any]) -> None:
    if isinstance(value, dict) and value:
        found.append(value)
        for item in value.values():
            _holders(item, found)
    elif isinstance(value, list) and value:
        found.append(value)
        for item in value:
            _holders(item, found)


def json_bytes(values: object, random: Random) -> bytes:
    """Write damaged JSON for these fields."""
    if random.random() < 0.1:
        return random.choice(BAD_JSON)
    try:
        data = json.dumps(damaged_fields(values, random)).encode()
    except RecursionError:
        return random.choice(BAD_JSON)
    return damaged(data, random) if random.random() < 0.2 else data
