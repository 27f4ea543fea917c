"""The C library's heap: giving its unused end back.

With huge pages the heap grows by two megabytes at a time, all of which is memory as soon as one
byte of them is written; half of that is never used. `malloc_trim` gives back only whole huge pages.
"""

from __future__ import annotations

import ctypes
from typing import Final

from loader_service.sandbox import libc

_MADV_DONTNEED: Final = 4
_PAGE: Final = 4096
_PRESENT_END: Final = 0
_HEADER: Final = 2 * ctypes.sizeof(ctypes.c_size_t)
_FLAGS: Final = 0b111


class _Counts(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    ]


_counts = getattr(libc.library, "mallinfo2", None)  # glibc 2.33
if _counts is not None:
    _counts.restype = _Counts
_sbrk = libc.library.sbrk
_sbrk.argtypes = [ctypes.c_ssize_t]
_sbrk.restype = ctypes.c_void_p
_malloc = libc.library.malloc
_malloc.argtypes = [ctypes.c_size_t]
_malloc.restype = ctypes.c_void_p
_mark: Final[int] = _malloc(1)
"""A block that is never freed: from here to the heap's end there is memory that can be read."""
_madvise = libc.library.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def give_back_unused_end() -> int:
    """Give back the memory between the last block in use and the heap's end; returns its bytes.

    The addresses stay the heap's, and have memory again as soon as they are used. Does nothing with
    a C library that cannot tell what is unused, or that has its last piece elsewhere.
    """
    if _counts is None:
        return 0
    unused: int = _counts().keepcost
    end = _sbrk(_PRESENT_END)
    last = end - unused
    # The last piece begins with its length. Elsewhere, this would take memory that is in use.
    if unused <= _HEADER or not _mark < last < end or _length_at(last) != unused:
        return 0
    begin = -(-(last + _HEADER) // _PAGE) * _PAGE
    length: int = end // _PAGE * _PAGE - begin
    if length <= 0 or _madvise(begin, length, _MADV_DONTNEED) != 0:
        return 0
    return length


def _length_at(piece: int) -> int:
    """The length in a piece's header."""
    length: int = ctypes.c_size_t.from_address(piece + _HEADER // 2).value
    return length & ~_FLAGS
