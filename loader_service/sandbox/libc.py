"""Typed bindings to the C library: the calls that Python's `os` does not offer."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from loader_service.sandbox.syscall_tables import host_architecture

library: Final = ctypes.CDLL(None, use_errno=True)

_syscall = library.syscall
_syscall.argtypes = [ctypes.c_long] * 7
_syscall.restype = ctypes.c_long


def syscall(name: str, *arguments: int) -> int:
    """Make the system call `name` with up to six integers or addresses.

    Returns its result. Raises `OSError` that names the call, `KeyError` for a name this
    architecture does not have, and `UnsupportedArchitectureError`.
    """
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    result: int = _syscall(host_architecture().numbers[name], *padded)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, *arguments: int) -> int:
    """The process control call; raises `OSError`."""
    return syscall("prctl", option, *arguments)


def c_string(text: str) -> ctypes.Array[ctypes.c_char]:
    """A NUL-terminated buffer whose address `ctypes.addressof` gives; keep it referenced."""
    return ctypes.create_string_buffer(text.encode())
