"""Resource limits of another process: prlimit(2), as the user whose process it is."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from loader_service.sandbox import libc

UNCHANGED: Final = -1


def limit_of(pid: int, ids: tuple[int, int], kind: int) -> tuple[int, int]:
    """The soft and the hard limit of a process whose user and group are `ids`; raises OSError."""
    with _real_ids(*ids):
        return resource.prlimit(pid, kind)


def set_soft_limit(pid: int, ids: tuple[int, int], kind: int, soft: int | None) -> None:
    """Set a soft limit, up to the hard one and, if `None`, to that; raises OSError."""
    with _real_ids(*ids):
        _, hard = resource.prlimit(pid, kind)
        if soft is None or (hard != resource.RLIM_INFINITY and soft > hard):
            soft = hard
        resource.prlimit(pid, kind, (soft, hard))


@contextmanager
def _real_ids(uid: int, gid: int) -> Iterator[None]:
    """Have the real ids of another user in this thread alone, while the block runs.

    The kernel compares real ids; only CAP_SYS_RESOURCE, which root need not have, stands in for
    them. The effective ids stay, and with them every right that this process has and shows.
    """
    before = os.getuid(), os.getgid()
    if before == (uid, gid):
        yield
        return
    libc.syscall("setresgid", gid, UNCHANGED, UNCHANGED)
    try:
        libc.syscall("setresuid", uid, UNCHANGED, UNCHANGED)
        try:
            yield
        finally:
            libc.syscall("setresuid", before[0], UNCHANGED, UNCHANGED)
    finally:
        libc.syscall("setresgid", before[1], UNCHANGED, UNCHANGED)
