"""Descriptors for offers: sealed memory as it should be, and all that it should not be."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from model_loader_wire.sealed import SEALS, make

PAGE = os.sysconf("SC_PAGESIZE")
KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of fallocate(2): blocks beyond a file's end."""
SEAL_FUTURE_WRITE = 0x10
SEAL_SETS = (
    *(0, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | SEAL_FUTURE_WRITE),
    *(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK),
    *(fcntl.F_SEAL_SEAL, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL),
)
"""None of them is enough."""
HUGE_PAGE = 2 << 20
libc = ctypes.CDLL(None, use_errno=True)


def _seal(descriptor: int, seals: int = SEALS) -> int:
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _written(content: bytes) -> int:
    descriptor = make()
    os.write(descriptor, content)
    return descriptor


def _reopened(descriptor: int, flags: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    finally:
        os.close(descriptor)


def _sealed(content: bytes, random: Random) -> int:
    return _seal(_written(content), SEALS | random.choice((0, fcntl.F_SEAL_SEAL)))


def _read_only(content: bytes, random: Random) -> int:
    return _reopened(_seal(_written(content)), os.O_RDONLY)


def _write_only(content: bytes, random: Random) -> int:
    first = _written(content)
    second = os.open(f"/proc/self/fd/{first}", os.O_WRONLY)
    os.close(_seal(first))
    return second


def _path(content: bytes, random: Random) -> int:
    return _reopened(_seal(_written(content)), os.O_PATH)


def _changeable(content: bytes, random: Random) -> int:
    return _seal(_written(content), random.choice(SEAL_SETS))


def _never_sealed(content: bytes, random: Random) -> int:
    descriptor = os.memfd_create("plain")
    os.write(descriptor, content)
    return descriptor


def _empty(content: bytes, random: Random) -> int:
    return _seal(make())


def _hole(content: bytes, random: Random) -> int:
    descriptor = make()
    pages = random.choice((2, 3, 256))
    os.ftruncate(descriptor, pages * PAGE)
    if random.random() < 0.7:
        os.pwrite(descriptor, content[:PAGE], random.randrange(pages) * PAGE)
    if random.random() < 0.5:
        _allocate_beyond(descriptor, pages * PAGE)
    return _seal(descriptor)


def _allocate_beyond(descriptor: int, size: int) -> None:
    """Give the file as many blocks as it has bytes, but not where its bytes are."""
    libc.fallocate(descriptor, KEEP_SIZE, ctypes.c_long(size), ctypes.c_long(size))


def _huge(content: bytes, random: Random) -> int:
    try:
        descriptor = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, HUGE_PAGE)
    except OSError:  # no such pages on this host
        return os.open("/dev/zero", os.O_RDONLY)
    return _seal(descriptor)


def _file(content: bytes, random: Random) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())


def _socket(content: bytes, random: Random) -> int:
    """One of a pair whose other end is closed, or one that listens."""
    if random.random() < 0.5:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours.detach()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")
    listening.listen()
    return listening.detach()


def _other(content: bytes, random: Random) -> int:
    match random.randrange(6):
        case 0:
            return os.open("/dev/null", os.O_RDWR)
        case 1:
            return os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        case 2:
            return os.eventfd(1)
        case 3:
            with select.epoll() as waiting:
                return os.dup(waiting.fileno())
        case 4:
            return os.pidfd_open(os.getpid())
        case _:
            kept, closed = random.sample(os.pipe(), 2)
            os.close(closed)
            return kept


Maker = Callable[[bytes, Random], int]
GOOD: dict[str, Maker] = {"sealed": _sealed, "read only": _read_only}
BAD: dict[str, Maker] = {
    "changeable": _changeable,
    "never sealed": _never_sealed,
    "empty": _empty,
    "with a hole": _hole,
    "huge pages": _huge,
    "write only": _write_only,
    "a path": _path,
    "a file": _file,
    "a socket": _socket,
    "something else": _other,
}
KINDS = GOOD | BAD


@contextmanager
def descriptor_of(kind: str, content: bytes, random: Random) -> Iterator[int]:
    """Make one of that kind with that content, as far as it can have any."""
    descriptor = KINDS[kind](content, random)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
