"""Targets to test the search itself with: one is sound, one has a fault that few inputs show."""

from __future__ import annotations


def sound(data: bytes) -> str:
    """Take anything."""
    return "short" if len(data) < 4 else "long"


def faulty(data: bytes) -> str:
    """Fail behind three bytes that have to be guessed one after another."""
    if data[:1] == b"T" and data[1:2] == b"F" and data[2:3] == b"L":
        raise IndexError("found")
    return "no fault"


TARGETS = {"sound": sound, "faulty": faulty}
EXAMPLES: dict[str, tuple[bytes, ...]] = {"sound": (b"good",), "faulty": (b"xyz",)}
