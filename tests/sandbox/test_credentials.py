"""Users for workers."""

from __future__ import annotations

import os
import signal

import pytest

from loader_service.sandbox import credentials, policy
from loader_service.sandbox.credentials import UidPool, is_mapped
from tests.sandbox.sandboxed import in_child

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


def test_a_pool_gives_no_user_twice_and_comes_around_late() -> None:
    pool = UidPool(range(100, 104))
    first = pool.take()
    pool.give_back(first)
    others = [pool.take() for _ in range(3)]
    assert first not in others
    assert sorted([first, *others]) == [100, 101, 102, 103]
    assert pool.take() == first
    with pytest.raises(RuntimeError, match="4 worker users"):
        pool.take()
    with pytest.raises(KeyError):
        pool.give_back(99)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        UidPool(range(0))


@pytest.mark.parametrize(
    ("id_map", "preferred", "fallback"),
    [
        ("         0          0 4294967295\n", True, True),
        ("         0     100000      65536\n", False, True),
        ("         0       1000          1\n", False, False),
        ("0 1000 1\n1 100000 65535\n", False, True),
        ("", False, False),
    ],
)
def test_ranges_are_looked_up_in_the_id_map(id_map: str, preferred: bool, fallback: bool) -> None:
    assert is_mapped(policy.UID_RANGE, id_map) is preferred
    assert is_mapped(policy.FALLBACK_UID_RANGE, id_map) is fallback


@as_root
def test_root_becomes_another_user_for_good() -> None:
    def work() -> list[object]:
        uid = credentials.UidPool.for_this_host().take()  # type: ignore[union-attr]
        credentials.change_user(uid)
        refused = []
        for act in (
            lambda: os.setuid(0),
            lambda: os.open("/etc/shadow", 0),
            lambda: os.setgroups([0]),
        ):
            try:
                act()
            except PermissionError as error:
                refused.append(error.errno)
        same = os.getresuid() == os.getresgid() == (uid, uid, uid)
        return [same, os.getgroups(), len(refused)]

    assert in_child(work).result() == [True, [], 3]


@as_root
def test_one_workers_user_cannot_signal_anothers() -> None:
    def work() -> list[str]:
        pool = credentials.UidPool.for_this_host()
        assert pool is not None
        reading, writing = os.pipe()
        other = os.fork()
        if other == 0:
            credentials.change_user(pool.take())
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)
        pool.take()
        killer = os.fork()
        if killer == 0:
            credentials.change_user(pool.take() + 1)
            try:
                os.kill(other, signal.SIGKILL)
            except PermissionError:
                os._exit(7)
            os._exit(0)
        refused = os.waitstatus_to_exitcode(os.waitpid(killer, 0)[1])
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        return ["refused" if refused == 7 else "done"]

    assert in_child(work).result() == ["refused"]


@pytest.mark.isolation
def test_only_root_has_users_for_its_workers() -> None:
    assert (UidPool.for_this_host() is None) == (os.geteuid() != 0)
