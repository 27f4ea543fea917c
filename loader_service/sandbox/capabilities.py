"""Dropping every capability, in every set."""

from __future__ import annotations

import ctypes
import struct
from contextlib import suppress
from typing import Final

from loader_service.sandbox import libc

_VERSION_3: Final = 0x2008_0522
_HEADER: Final = struct.Struct("=Ii")
_DATA: Final = struct.Struct("=6I")  # effective, permitted, inheritable: low words, high words
_LAST_POSSIBLE: Final = 63
USER_CHANGE: Final = 1 << 6 | 1 << 7
"""CAP_SETGID and CAP_SETUID."""

_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# linux/securebits.h: NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each locked.
_LOCKED_SECUREBITS: Final = 0b1110_1111
_NO_SETUID_FIXUP: Final = 1 << 2


def drop_all() -> None:
    """Empty the effective, permitted, inheritable and ambient sets of this thread, for good.

    The bounding set is emptied and the secure bits are locked first where this process may do so
    (it holds CAP_SETPCAP in its user namespace); an ordinary process holds nothing to raise from
    them. Raises `OSError` when a set is not empty afterwards.
    """
    _drop_bounding_set()
    with suppress(OSError):
        libc.prctl(_PR_SET_SECUREBITS, _LOCKED_SECUREBITS)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set(0, 0, 0)
    if any(held()):
        raise OSError("capset: a capability is still held")


def reduce_to(bits: int) -> None:
    """Hold these capabilities and no other, and be able to gain no other by executing a file.

    They are lost when root changes to another user. Raises `OSError`.
    """
    _drop_bounding_set()
    libc.prctl(_PR_SET_SECUREBITS, _LOCKED_SECUREBITS & ~_NO_SETUID_FIXUP)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set(bits, bits, 0)
    if bounding_set():
        raise OSError("prctl: a capability could still be gained")


def held() -> tuple[int, int, int]:
    """The effective, permitted and inheritable sets of this thread as bit masks."""
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    data = ctypes.create_string_buffer(_DATA.size)
    libc.syscall("capget", ctypes.addressof(header), ctypes.addressof(data))
    low_and_high = _DATA.unpack(data.raw)
    effective, permitted, inheritable = (
        low_and_high[index] | low_and_high[index + 3] << 32 for index in range(3)
    )
    return effective, permitted, inheritable


def bounding_set() -> int:
    """The capabilities that executing a file could still grant, as a bit mask."""
    bits = 0
    for capability in range(_LAST_POSSIBLE + 1):
        try:
            bits |= libc.prctl(_PR_CAPBSET_READ, capability) << capability
        except OSError:  # beyond the kernel's last capability
            break
    return bits


def keep_over_user_change(keep: bool) -> None:
    """Keep the permitted set when this thread changes from root to another user."""
    libc.prctl(_PR_SET_KEEPCAPS, int(keep))


def raise_permitted() -> None:
    """Make every permitted capability effective."""
    _, permitted, inheritable = held()
    _set(permitted, permitted, inheritable)


def _drop_bounding_set() -> None:
    for capability in range(_LAST_POSSIBLE + 1):
        try:
            libc.prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the kernel's last capability, or not allowed at all
            break


def _set(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    data = ctypes.create_string_buffer(
        _DATA.pack(*(bits & 0xFFFF_FFFF for bits in sets), *(bits >> 32 for bits in sets))
    )
    libc.syscall("capset", ctypes.addressof(header), ctypes.addressof(data))
