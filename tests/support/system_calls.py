"""Counting the system calls of one thread of another process, by ptrace(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections import Counter
from collections.abc import Callable

from loader_service.sandbox.syscall_tables import host_architecture

PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_GET_SYSCALL_INFO = 0x420E
PTRACE_O_TRACESYSGOOD = 1
ENTRY = 1
EXIT = 2
WAIT_ALL = 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _SyscallInfo(ctypes.Structure):
    """``struct ptrace_syscall_info`` at the entry of a call.

    At its exit, ``number`` is the result.
    """

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


def count_system_calls(thread: int, until: Callable[[str], bool]) -> Counter[str]:
    """Count a thread's system calls by name until `until` says so of one that begins.

    That one is not counted, nor are those that had to say EAGAIN. Raises PermissionError where this
    process may not trace that one.
    """
    name_of = host_architecture().name_of
    _call(PTRACE_SEIZE, thread, PTRACE_O_TRACESYSGOOD)
    _call(PTRACE_INTERRUPT, thread, 0)
    counts: Counter[str] = Counter()
    name = "a call that had begun before"
    while True:
        _, status = os.waitpid(thread, WAIT_ALL)
        assert os.WIFSTOPPED(status), f"the traced thread ended: {status}"
        stop = os.WSTOPSIG(status)
        passed_on = 0
        if stop == signal.SIGTRAP | 0x80:
            info = _SyscallInfo()
            _call(
                PTRACE_GET_SYSCALL_INFO,
                thread,
                ctypes.addressof(info),
                address=ctypes.sizeof(info),
            )
            if info.op == ENTRY:
                name = name_of(info.number)
                if until(name):
                    _call(PTRACE_DETACH, thread, 0)
                    return counts
            elif info.op == EXIT and info.number != -errno.EAGAIN % 2**64:
                counts[name] += 1  # at an exit, the place of the number has the result
        elif status >> 16 == 0:
            passed_on = stop  # a signal of the thread's own
        _call(PTRACE_SYSCALL, thread, passed_on)


def _call(request: int, thread: int, data: int, address: int = 0) -> None:
    ctypes.set_errno(0)
    if _ptrace(request, thread, address, data) == -1 and ctypes.get_errno():
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
