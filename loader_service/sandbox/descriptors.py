"""Which descriptors a process has, and how many it may have."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection
from typing import Final

from loader_service.sandbox import libc

MANY: Final = 65_536
"""Descriptors that a service may open, where the hard limit allows."""
_LAST: Final = 0xFFFF_FFFF


def allow_many() -> None:
    """Raise this process's soft limit of open descriptors: a service holds several a worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < MANY:
        many = MANY if hard == resource.RLIM_INFINITY else min(hard, MANY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (many, hard))


def close_all_except(kept: Collection[int]) -> None:
    """Close every descriptor of this process that is not in `kept`, whoever opened it."""
    first = 0
    for descriptor in sorted(set(kept)):
        if first < descriptor:
            _close_range(first, descriptor - 1)
        first = descriptor + 1
    _close_range(first, _LAST)


def open_standard() -> None:
    """Open /dev/null in place of each standard stream that this process was started without.

    Else a socket or a lock gets its number, and a child that is given a standard stream loses it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def place(placements: dict[int, int]) -> None:
    """Move descriptors to fixed numbers (target to source), then close everything else.

    The targets are inheritable, as `dup2` makes them. Sources and targets may overlap.
    """
    clear = max([*placements.keys(), *placements.values()]) + 1
    copies = {target: _duplicate_from(source, clear) for target, source in placements.items()}
    for target, copy in copies.items():
        os.dup2(copy, target)
    close_all_except(placements.keys())


def _duplicate_from(descriptor: int, lowest: int) -> int:
    f_dupfd = 0
    return libc.syscall("fcntl", descriptor, f_dupfd, lowest)


def _close_range(first: int, last: int) -> None:
    try:
        libc.syscall("close_range", first, last, 0)
    except OSError:  # Linux before 5.9, or a filter that does not know the call
        os.closerange(first, min(last + 1, os.sysconf("SC_OPEN_MAX")))
