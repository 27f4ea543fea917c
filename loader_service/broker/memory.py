"""The broker's own memory: how much it has, and giving back what it does not use."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

STATM = Path("/proc/self/statm")
RESIDENT, SHARED = 1, 2
"""Fields of statm, in pages."""
PAGE = os.sysconf("SC_PAGESIZE")


def own_bytes() -> int:
    """Return the resident memory of this process that is no file's."""
    fields = STATM.read_text(encoding="ascii").split()
    return (int(fields[RESIDENT]) - int(fields[SHARED])) * PAGE


def return_free_memory() -> None:
    """Let the C library give the kernel what it holds and nobody uses; some have no such call."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def of_this_machine() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE
