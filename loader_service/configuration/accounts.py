"""Users and groups: from what an operator writes to the kernel's numbers."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable

MOST = 2**32 - 2
"""The highest uid and gid; the one above it means "none" to the kernel."""


def uid_of(user: object) -> int:
    """Return the uid of a user that is named, or that number; raises ValueError."""
    return _number(user, "user", lambda name: pwd.getpwnam(name).pw_uid)


def gid_of(group: object) -> int:
    """Return the gid of a group that is named, or that number; raises ValueError."""
    return _number(group, "group", lambda name: grp.getgrnam(name).gr_gid)


def members_of(gid: int) -> frozenset[int]:
    """Return the users who are in a group, by the system's databases.

    Those whose first group it is, and those whom it lists; a name without an account is left out.
    """
    found = {account.pw_uid for account in pwd.getpwall() if account.pw_gid == gid}
    try:
        listed = grp.getgrgid(gid).gr_mem
    except KeyError:
        listed = []
    for name in listed:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return frozenset(found)


def name_of(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _number(value: object, what: str, look: Callable[[str], int]) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MOST:
            raise ValueError(f"there is no {what} {value}")
        return value
    if not isinstance(value, str):
        raise ValueError(f"a {what} is a name or a number, not {value!r}")
    try:
        return look(value)
    except KeyError:
        raise ValueError(f"there is no {what} {value!r}") from None
