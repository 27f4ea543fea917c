"""System calls, made from a worker without the help or the checks of Python."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from loader_service.sandbox.syscall_tables import host_architecture

_library = ctypes.CDLL(None, use_errno=True)
_syscall = _library.syscall
_syscall.restype = ctypes.c_long

I386_GATE = bytes.fromhex(
    "53"  # push rbx
    "89f8 89f3"  # mov eax, edi; mov ebx, esi
    "31c9 31d2 31f6 31ff"  # xor ecx, edx, esi, edi
    "cd80"  # int 0x80
    "5b c3"  # pop rbx; ret
)
kept: list[mmap.mmap] = []
"""Mappings with machine code; the gate is the first."""
_gate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint)


def new_code(code: bytes) -> mmap.mmap:
    """Map machine code: possible before lock-down only."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return page


def address_of(page: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def map_gate() -> None:
    """Map the code for system calls of 32-bit programs: before lock-down, for the forks."""
    kept.append(new_code(I386_GATE))


def through_gate(number: int, argument: int = 0) -> int:
    """Make a system call of the i386 table by interrupt 0x80."""
    result: int = _gate(address_of(kept[0]))(number, argument)
    return result


def call(which: str | int, *arguments: object) -> int:
    """Make a system call by name or number; returns its result, or -errno.

    Texts and bytes become buffers, as do ``{"zeros": n}`` and ``{"hex": digits}``; the rest are
    integers.
    """
    number = which if isinstance(which, int) else host_architecture().numbers[which]
    buffers: list[ctypes.Array[ctypes.c_char]] = []
    values = []
    for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]:
        match argument:
            case str():
                buffers.append(ctypes.create_string_buffer(argument.encode()))
            case bytes():
                buffers.append(ctypes.create_string_buffer(argument, len(argument)))
            case {"hex": str(digits)}:
                data = bytes.fromhex(digits)
                buffers.append(ctypes.create_string_buffer(data, len(data)))
            case {"zeros": int(size)}:
                buffers.append(ctypes.create_string_buffer(size))
            case int():
                values.append(ctypes.c_ulong(argument & 0xFFFF_FFFF_FFFF_FFFF))
                continue
            case _:
                raise TypeError(f"{argument!r} is no argument")
        values.append(ctypes.c_ulong(ctypes.addressof(buffers[-1])))
    result: int = _syscall(ctypes.c_long(number), *values)
    return -ctypes.get_errno() if result == -1 else result


def make(calls: list[list[Any]]) -> list[int]:
    """Make several system calls, one after another; returns the results."""
    return [call(*parts) for parts in calls]


def make_and_close(parts: list[Any]) -> int:
    """Make one system call; a descriptor that it yields is closed again."""
    result = call(*parts)
    if result > 4:
        call("close", result)
    return result


def set_limit(number: int, values: str) -> int:
    """Set a resource limit to the struct rlimit given in hexadecimal digits."""
    return call("prlimit64", 0, number, bytes.fromhex(values), 0)


def connect(family: int, address: str) -> int:
    """Connect a stream socket to a struct sockaddr in hexadecimal digits; 0, or -errno."""
    descriptor = call("socket", family, 1, 0)
    if descriptor < 0:
        return descriptor
    data = bytes.fromhex(address)
    result = call("connect", descriptor, data, len(data))
    call("close", descriptor)
    return result


def read_process(pid: int, address: int) -> int:
    """Read eight bytes of another process; returns how many came, or -errno."""
    place = ctypes.create_string_buffer(8)
    size = (8).to_bytes(8, "little")
    local = ctypes.addressof(place).to_bytes(8, "little") + size
    remote = address.to_bytes(8, "little") + size
    return call("process_vm_readv", pid, local, 1, remote, 1, 0)
