"""New machine code: memory that is written first and run afterwards."""

from __future__ import annotations

import ctypes
import mmap

from tests.hostile.attacks.calls import address_of, call

RETURN_42 = bytes.fromhex("b82a000000 c3")  # mov eax, 42; ret
PROTECTION_GROWS_DOWN = 0x0100_0000
kept: list[mmap.mmap] = []


def write_and_run() -> int:
    """Make a page executable that was written a moment ago; returns what its code returns."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page.write(RETURN_42)
    kept.append(page)
    protect = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    result = call("mprotect", address_of(page), mmap.PAGESIZE, protect)
    if result < 0:
        return result
    code: int = ctypes.CFUNCTYPE(ctypes.c_int)(address_of(page))()
    return code


def protect_oddly() -> int:
    """Ask for executable memory with a flag beside the three protections."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    kept.append(page)
    protect = mmap.PROT_READ | mmap.PROT_EXEC | PROTECTION_GROWS_DOWN
    return call("mprotect", address_of(page), mmap.PAGESIZE, protect)


def map_executable() -> int:
    """Map executable memory at once."""
    protect = mmap.PROT_READ | mmap.PROT_EXEC
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return call("mmap", 0, mmap.PAGESIZE, protect, flags, -1, 0)
