"""Which users a machine's service may run as: root, or the account that was made for it."""

from __future__ import annotations

import os
import pwd

ROOT = 0
ACCOUNT = "model-loader"
"""The name of the account, and of the group whose members may use the service."""
SYSTEM_UIDS = range(1, 1000)
"""Only root makes accounts with these (login.defs(5), SYS_UID_MAX); a person's has a higher one."""


def account_uid() -> int | None:
    """Return the uid of the service's own account, if this machine has one."""
    try:
        uid = pwd.getpwnam(ACCOUNT).pw_uid
    except KeyError:
        return None
    return uid if uid in SYSTEM_UIDS else None


def is_system_user(uid: int) -> bool:
    """Whether a service that runs as this user is the machine's, and may serve any user."""
    return uid == ROOT or uid == account_uid()


def runs_for_the_machine() -> bool:
    """Whether this process runs as such a user."""
    return is_system_user(os.geteuid())
