"""Ways for a worker to end."""

from __future__ import annotations

import ctypes
import os

from tests.hostile.attacks import calls


def abort() -> None:
    """End as a failed assertion in C does."""
    ctypes.CDLL(None).abort()


def read_null() -> None:
    """Read where nothing is: SIGSEGV."""
    ctypes.string_at(0)


def run(code: str) -> None:
    """Run machine code that is there already, given as hexadecimal digits."""
    found = _code_pages[code]
    ctypes.CFUNCTYPE(ctypes.c_int)(found)()


def leave(status: int) -> None:
    """End by itself with a status."""
    os._exit(status)


def use_processor() -> None:
    """Compute for ever."""
    while True:
        pass


def hang() -> None:
    """Wait for ever without using the processor."""
    while True:
        calls.call("poll", 0, 0, 1000)


def say_and_abort(text: str) -> None:
    """Write something on standard error, then abort."""
    os.write(2, text.encode())
    abort()


_code_pages: dict[str, int] = {}


def map_faults(codes: tuple[str, ...]) -> None:
    """Map pieces of machine code, before lock-down: afterwards nothing can be made executable."""
    for code in codes:
        calls.kept.append(calls.new_code(bytes.fromhex(code)))
        _code_pages[code] = calls.address_of(calls.kept[-1])


def touch_beyond_file() -> None:
    """Read a page of a mapped file that has no such page: SIGBUS."""
    ctypes.string_at(_beyond[0], 1)


_beyond: list[int] = []


def map_short_file() -> None:
    """Map two pages of a file that holds none, before lock-down."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    ]
    descriptor = os.memfd_create("empty")
    _beyond.append(library.mmap(None, 8192, 1, 1, descriptor, 0))
    os.close(descriptor)
