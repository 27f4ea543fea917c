"""What a forked child does with its parent's objects: nothing, and says so.

A child that kept the descriptors open would keep workers alive after its parent, and one that used
them would mix its bytes with the parent's. So the child closes its copies (it never shuts a socket
down: the connection itself is shared), and each object remembers the process it belongs to.
"""

from __future__ import annotations

import os
import weakref
from typing import NoReturn, Protocol

from .errors import InvalidStateError


class HoldsDescriptor(Protocol):
    """Something that owns a descriptor."""

    def close_descriptor(self) -> None:
        """Close this process's copy of it."""


class BoundToProcess:
    """An object that is no value: it stands for something that this process holds."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, for another process above all."""
        raise TypeError(
            f"{type(self).__name__} can be neither copied nor pickled: it belongs to the process "
            "that made it; create a context and load the model where they are wanted"
        )


current = 0
"""The number of forks between this process and the one that imported the package."""

_holders: weakref.WeakSet[HoldsDescriptor] = weakref.WeakSet()


def close_in_child(holder: HoldsDescriptor) -> None:
    """Let a forked child close its copy of the holder's descriptor."""
    _holders.add(holder)


def check(made_in: int, what: str) -> None:
    """Raise InvalidStateError if an object of another process is used here."""
    if made_in != current:
        raise InvalidStateError(
            f"this {what} belongs to the process that was forked; create a context of its own in "
            "the child"
        )


def _after_fork() -> None:
    global current
    current += 1
    for holder in list(_holders):
        try:
            holder.close_descriptor()
        except OSError:
            continue
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
