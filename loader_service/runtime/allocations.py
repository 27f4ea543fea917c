"""Telling a refused allocation from an operator's own failure.

Under a limit a model that wants too much memory looks like one whose operators fail: XNNPACK says
"failed to reshape runtime", the built-in kernels say nothing. But the C library leaves ENOMEM in
`errno` when an allocation is refused, nothing clears it, and one thread does all preparing. So
`errno` is cleared before a call into the runtime and looked at when the call has failed.
"""

from __future__ import annotations

import ctypes
import errno
from weakref import WeakSet

from loader_service.runtime.failures import LimitReached


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of the GNU C library; all fields in bytes or counts."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_libc = ctypes.CDLL(None)
_errno_place = _libc["__errno_location"]
_errno_place.restype = ctypes.c_void_p
_malloc_trim = getattr(_libc, "malloc_trim", None)
if _malloc_trim is not None:
    _malloc_trim.argtypes = [ctypes.c_size_t]
_mallinfo2 = getattr(_libc, "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _MallocInfo


def held_bytes() -> int:
    """Bytes that the C library holds from the kernel for this process; 0 if it cannot tell.

    Needs no file and no system call, so it works inside the sandbox. NumPy, the runtimes and
    XNNPACK allocate there; Python's own small objects and the libraries' data are not in it.
    """
    if _mallinfo2 is None:
        return 0
    info = _mallinfo2()
    return int(info.arena) + int(info.hblkhd)


def give_back() -> None:
    """Return to the kernel what the C library holds and nobody uses: after a model has gone."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def limit_all(memory_bytes: int) -> None:
    """Note another limit of this process, where one makes allocations fail.

    That of a process with several models is raised and lowered as they come and go.
    """
    for watch in _watches:
        if watch.memory_bytes is not None:
            watch.memory_bytes = memory_bytes


class AllocationWatch:
    """Watches one thread's allocations; made in the thread that will call the runtime."""

    def __init__(self, memory_bytes: int | None) -> None:
        """Watch under that limit; None if no limit makes allocations fail here."""
        self.memory_bytes = memory_bytes
        _watches.add(self)
        self._errno = ctypes.c_int.from_address(_errno_place())
        # The limit counts from what this process had before it had a model.
        self._held_before = held_bytes()

    def begin(self) -> None:
        """Forget what was refused so far; to be called just before the runtime is."""
        self._errno.value = 0

    def refused(self, error: BaseException) -> bool:
        """Whether an allocation was refused since `begin`; `error` is what the runtime raised."""
        return self._errno.value == errno.ENOMEM or isinstance(error, MemoryError)

    def limit_reached(self, wanted_bytes: int) -> LimitReached | None:
        """Describe the refusal, if there is a limit to name.

        ``wanted_bytes``: an estimate of what the model would have to have beside what is held now.
        """
        if self.memory_bytes is None:
            return None
        held = max(held_bytes() - self._held_before, 0)
        value = max(held + wanted_bytes, self.memory_bytes + 1)
        return LimitReached(
            f"the model needs more memory than memory_bytes={self.memory_bytes} allows: an "
            f"allocation was refused while {held} bytes were held",
            "memory_bytes",
            value,
            self.memory_bytes,
        )


_watches: WeakSet[AllocationWatch] = WeakSet()
