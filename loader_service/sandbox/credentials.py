"""Users for workers: a pool of numbers nobody else has, and the change to one of them."""

from __future__ import annotations

import os
from pathlib import Path

from loader_service.sandbox import policy


def change_user(uid: int) -> None:
    """Become user and group `uid` with no other group, for good.

    Works for root only. Afterwards the process is not dumpable until it says so again.
    Raises `OSError`.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid) or os.getgroups():
        raise OSError("setresuid: the change of user did not take effect")


class UidPool:
    """Gives each worker a user id that no other worker of this process has.

    Numbers come around only after the whole range was used, so a new worker does not get the
    number of one that has just died. The start is random: two services on one machine rarely meet.
    """

    def __init__(self, uids: range) -> None:
        if not uids:
            raise ValueError("a pool of users needs at least one")
        self._uids = uids
        # Not by `secrets`, whose libraries every zygote would have to load.
        self._next = int.from_bytes(os.urandom(8)) % len(uids)
        self._taken: set[int] = set()

    @classmethod
    def for_this_host(cls) -> UidPool | None:
        """The pool this process can use, or `None` when it is not root and cannot change users."""
        uids = usable_uids()
        return None if os.geteuid() != 0 or uids is None else cls(uids)

    def take(self) -> int:
        """A user id until it is given back. Raises `RuntimeError` when all are taken."""
        for _ in self._uids:
            uid = self._uids[self._next]
            self._next = (self._next + 1) % len(self._uids)
            if uid not in self._taken:
                self._taken.add(uid)
                return uid
        raise RuntimeError(f"all {len(self._uids)} worker users are taken")

    def give_back(self, uid: int) -> None:
        """Say that no process runs under `uid` any more. Raises `KeyError` for one not taken."""
        self._taken.remove(uid)


def usable_uids() -> range | None:
    """The preferred range of user ids that this user namespace maps, for users and groups."""
    maps = [Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text()]
    for uids in (policy.UID_RANGE, policy.FALLBACK_UID_RANGE):
        if all(is_mapped(uids, text) for text in maps):
            return uids
    return None


def is_mapped(uids: range, id_map: str) -> bool:
    """Whether one line of `id_map` (as /proc/<pid>/uid_map shows it) covers the whole range."""
    for line in id_map.splitlines():
        first, _, count = (int(field) for field in line.split())
        if first <= uids.start and uids.stop <= first + count:
            return True
    return False
