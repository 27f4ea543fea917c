"""Limits of another process, set as its user."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loader_service.sandbox.credentials import change_user, usable_uids
from loader_service.sandbox.foreign_limits import limit_of, set_soft_limit

DATA = resource.RLIMIT_DATA
SOFT, HARD = 1 << 30, 1 << 31


@contextmanager
def process(uid: int | None) -> Iterator[tuple[int, tuple[int, int]]]:
    """A child with a soft and a hard limit, as another user if one is given; its pid and ids."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(DATA, (SOFT, HARD))
        if uid is not None:
            change_user(uid)
        os.write(writing, b"x")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid, (os.getuid(), os.getgid()) if uid is None else (uid, uid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def another_user() -> int | None:
    """A user whose process only CAP_SYS_RESOURCE or that user may limit; None without root."""
    uids = usable_uids()
    return uids[-1] if os.geteuid() == 0 and uids is not None else None


@pytest.mark.parametrize("uid", [None, another_user()])
def test_a_soft_limit_is_raised_and_lowered_up_to_the_hard_one(uid: int | None) -> None:
    with process(uid) as (pid, ids):
        for wanted, found in ((SOFT + 4096, SOFT + 4096), (4096, 4096), (HARD + 1, HARD)):
            set_soft_limit(pid, ids, DATA, wanted)
            assert limit_of(pid, ids, DATA) == (found, HARD)
        set_soft_limit(pid, ids, DATA, SOFT)
        set_soft_limit(pid, ids, DATA, None)
        assert limit_of(pid, ids, DATA) == (HARD, HARD)


def test_this_process_stays_who_it_is() -> None:
    before = os.getresuid(), os.getresgid()
    with process(another_user()) as (pid, ids):
        set_soft_limit(pid, ids, DATA, 4096)
        assert (os.getresuid(), os.getresgid()) == before
        with pytest.raises(ValueError, match="resource"):
            limit_of(pid, ids, 1000)
        assert (os.getresuid(), os.getresgid()) == before


def test_a_process_that_has_ended_has_no_limits() -> None:
    with process(None) as (pid, ids):
        pass
    with pytest.raises(ProcessLookupError):
        set_soft_limit(pid, ids, DATA, 4096)
