"""Sealed memory: how a local client gives a model's bytes to the service without copying them.

A memfd that is sealed cannot be changed by anybody any more, so that what one side hashed is what
the other side reads. The seals are those of fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
"""What the service demands; it implies that the content is final."""

NO_EXEC = 0x8
"""MFD_NOEXEC_SEAL of Linux 6.3: never to be executed."""


def make() -> int:
    """Make an empty memfd that can be sealed; raises OSError where there is no such thing."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("model", flags | NO_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # that says that the kernel is older than the flag
            raise
        return os.memfd_create("model", flags)
