"""Names for tensors and signatures that a model leaves without, or repeats."""

from __future__ import annotations

from collections.abc import Iterable

from model_loader_wire.causes import printable
from model_loader_wire.description import NAME_LENGTH

SUFFIX_LENGTH = 8
"""Room kept for ``:1`` and so on, within the longest name that a description may hold."""


def unique_names(names: Iterable[str], fallback: str) -> list[str]:
    """Make names distinct: a repeated one becomes ``name``, ``name:1``, ``name:2`` …

    An empty one becomes `fallback` first. Control characters are escaped and long names cut here,
    as the receivers of a description do, so that two names never become one on the way.
    """
    used: set[str] = set()
    result = []
    for name in names:
        base = printable(name, NAME_LENGTH - SUFFIX_LENGTH) or fallback
        # Escapes are longer than what they stand for.
        base = base[: NAME_LENGTH - SUFFIX_LENGTH]
        unique, repetition = base, 0
        while unique in used:
            repetition += 1
            unique = f"{base}:{repetition}"
        used.add(unique)
        result.append(unique)
    return result
