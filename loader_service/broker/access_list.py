"""Letting one more user into a file of one's own: acl(5), without the right to give files away."""

from __future__ import annotations

import os
import struct
from pathlib import Path

ATTRIBUTE = "system.posix_acl_access"
VERSION = struct.Struct("<I")
ENTRY = struct.Struct("<HHI")
"""struct posix_acl_xattr_entry of <linux/posix_acl_xattr.h>: tag, permissions, id."""
OWNER, USER, OWNING_GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF
"""The id of the entries that are about no one user."""


def let_in(path: Path, uid: int, permissions: int) -> None:
    """Let a user, beside the owner, and nobody else, do what `permissions` (4, 2, 1) say.

    Raises OSError, for a file system without access lists, too.
    """
    entries = (
        (OWNER, 0o7, NOBODY),
        (USER, permissions, uid),
        (OWNING_GROUP, 0, NOBODY),
        (MASK, permissions, NOBODY),
        (OTHERS, 0, NOBODY),
    )
    value = VERSION.pack(2) + b"".join(ENTRY.pack(*entry) for entry in entries)
    os.setxattr(path, ATTRIBUTE, value, follow_symlinks=False)
