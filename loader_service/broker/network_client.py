"""Principals of the TCP port: who a certificate or a token says that somebody is."""

from __future__ import annotations

import hashlib
from typing import Self

FIRST = 1 << 32
"""Above every uid, of which each has 32 bits."""
SPREAD_BYTES = 6
"""With `FIRST` they stay far below 2**53, up to which JSON's readers count."""


class NetworkClient(int):
    """A principal that is no user of this machine.

    It counts, holds and is limited as a uid is, and no uid is equal to one. The number comes from
    the name, so that it is the same again when the service was started anew: what is kept on disk
    for one client is never found by another.
    """

    name: str
    """Of what kind it is, and how it is called: ``dns:camera.example``, ``token:camera``."""

    def __new__(cls, name: str) -> Self:
        """Make the principal of that name."""
        digest = hashlib.sha256(name.encode()).digest()
        client = super().__new__(cls, FIRST + int.from_bytes(digest[:SPREAD_BYTES], "big"))
        client.name = name
        return client

    def __repr__(self) -> str:
        return f"NetworkClient({self.name!r})"

    __str__ = int.__repr__
    """Its number: what is written of a principal into paths and keys; a name may hold slashes."""


NOBODY = FIRST - 1
"""No user has this uid: the kernel's word for none."""
STRANGER = NetworkClient("stranger:")
"""Somebody at the port who showed nothing that a policy knows."""


def label_of(principal: int) -> int | str:
    """Return a uid, or a client's name: how a principal is told to people."""
    return principal.name if isinstance(principal, NetworkClient) else principal


def own_origin(principal: int) -> str:
    """Return the origin of a principal that gives none."""
    if isinstance(principal, NetworkClient):
        return f"client:{principal.name}"
    return f"uid:{principal}"


def said(principal: int) -> str:
    """Name a principal in a sentence."""
    kind = "client" if isinstance(principal, NetworkClient) else "uid"
    return f"{kind} {label_of(principal)}"
