"""Compiled partitions that are kept for their model's next load.

What is kept came from a worker, and goes to none but workers of the same user, origin, model and
token: the broker itself puts these into the place of an entry, beside the key that the worker
names. So a model that took over its worker can lay out bad bytes for itself only. Each entry is
authenticated with a key that only the broker has; one that is damaged, or was put there by
somebody else, is as if it were not there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from loader_service.broker.groups import Owner

KEY_BYTES = 32
TAG_BYTES = hashlib.sha256().digest_size
ENTRY_BYTES = 4096
"""What an entry counts beside its bytes: its name, and at least a block of a file system. Without
it, entries of a byte each would be bounded in their bytes, and not in their number."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How much is kept, in bytes."""

    total: int
    of_an_origin: int
    of_an_entry: int


class Keeping(Protocol):
    """Where sealed entries lie, by name."""

    def names(self) -> list[tuple[str, int]]:
        """Return names and sizes of what is there already, what was used longest ago first."""
        ...

    def read(self, name: str, longest: int) -> bytes | None:
        """Return an entry of at most so many bytes; None if it cannot be read."""
        ...

    def write(self, name: str, sealed: bytes) -> bool:
        """Keep an entry; returns whether that went well."""
        ...

    def remove(self, name: str) -> None:
        """Let go of an entry."""
        ...


class InMemory:
    """Entries that live as long as the broker."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def names(self) -> list[tuple[str, int]]:
        """Nothing is there at the start."""
        return [(name, len(sealed)) for name, sealed in self._entries.items()]

    def read(self, name: str, longest: int) -> bytes | None:
        """Return an entry."""
        sealed = self._entries.get(name)
        return sealed if sealed is None or len(sealed) <= longest else None

    def write(self, name: str, sealed: bytes) -> bool:
        """Keep an entry."""
        self._entries[name] = sealed
        return True

    def remove(self, name: str) -> None:
        """Let go of an entry."""
        self._entries.pop(name, None)


class CompiledStore:
    """Entries by owner and place, within limits; what was used longest ago gives way."""

    def __init__(self, keeping: Keeping, secret: bytes, limits: CacheLimits) -> None:
        """Take up what is kept already; `secret` authenticates it."""
        self.limits = limits
        self._keeping = keeping
        self._secret = secret
        self._sizes = OrderedDict((name, ENTRY_BYTES + size) for name, size in keeping.names())
        self._total = sum(self._sizes.values())
        while self._total > limits.total:
            self._remove(next(iter(self._sizes)))

    def length(self, owner: Owner, place: bytes) -> int:
        """Return how many bytes `find` will return, if nothing changes; from any thread."""
        return max(0, self._sizes.get(self._name(owner, place), 0) - ENTRY_BYTES - TAG_BYTES)

    def find(self, owner: Owner, place: bytes) -> bytes | None:
        """Return what was kept at a place; None for nothing, and for what is not as it was kept."""
        name = self._name(owner, place)
        if name not in self._sizes:
            return None
        sealed = self._keeping.read(name, self.limits.of_an_entry + TAG_BYTES)
        if sealed is not None:
            tag, blob = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
            if hmac.compare_digest(tag, self._tag(name, blob)):
                self._sizes.move_to_end(name)
                return blob
        self._remove(name)
        return None

    def keep(self, owner: Owner, place: bytes, blob: bytes) -> bool:
        """Keep a blob, in the room of older ones of the same owner, then of anybody's.

        Returns whether it is kept: not if it is larger than what the owner may have.
        """
        name, size = self._name(owner, place), ENTRY_BYTES + TAG_BYTES + len(blob)
        limits = self.limits
        if not 0 < len(blob) <= limits.of_an_entry or size > min(limits.of_an_origin, limits.total):
            return False
        self._remove(name)
        prefix = _prefix(owner)
        mine = [other for other in self._sizes if other.startswith(prefix)]
        used = sum(self._sizes[other] for other in mine)
        for other in mine:
            if used + size <= limits.of_an_origin:
                break
            used -= self._sizes[other]
            self._remove(other)
        while self._total + size > limits.total:
            self._remove(next(iter(self._sizes)))
        if not self._keeping.write(name, self._tag(name, blob) + blob):
            return False
        self._sizes[name] = size
        self._total += size
        return True

    def _name(self, owner: Owner, place: bytes) -> str:
        return _prefix(owner) + hashlib.sha256(place).hexdigest()

    def _tag(self, name: str, blob: bytes) -> bytes:
        return hmac.digest(self._secret, name.encode() + b"\0" + blob, "sha256")

    def _remove(self, name: str) -> None:
        size = self._sizes.pop(name, None)
        if size is not None:
            self._total -= size
            self._keeping.remove(name)


def place_of(sha256: bytes, token: bytes, key: bytes) -> bytes:
    """Put together where an entry lies for its owner.

    `sha256`: of the model's bytes, as the broker has seen them; `token`: the caller's; `key`: what
    the worker names, of `KEY_BYTES` bytes.
    """
    return hashlib.sha256(b"\0".join((sha256, hashlib.sha256(token).digest(), key))).digest()


def _prefix(owner: Owner) -> str:
    """Begin the names of an owner's entries; the origin is a text of any length."""
    origin = f"{owner.principal}\0{owner.origin}".encode()
    return hashlib.sha256(origin).hexdigest()[:32] + "-"
