"""A root directory with nothing in it, and no way to put something there."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from loader_service.sandbox import libc, policy

_MS_RDONLY: Final = 0x1
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_NOEXEC: Final = 0x8
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MNT_DETACH: Final = 0x2


def enter_empty_root() -> None:
    """Make an empty, read-only file system the root and unmount everything else.

    Needs a mount namespace of its own and CAP_SYS_ADMIN in it. Afterwards no path but `/` resolves
    (not even /proc), so whatever must be read has to be read before. Raises `OSError`.
    """
    # Nothing that is mounted or unmounted here may reach the namespace this one was copied from.
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    mount_point = next(path for path in policy.ROOT_MOUNT_POINTS if os.path.isdir(path))
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("tmpfs", mount_point, "tmpfs", flags, policy.ROOT_OPTIONS)
    os.chdir(mount_point)
    # The old root is stacked on the same place as the new one, so no directory is needed for it.
    here = libc.c_string(".")
    libc.syscall("pivot_root", ctypes.addressof(here), ctypes.addressof(here))
    libc.syscall("umount2", ctypes.addressof(here), _MNT_DETACH)
    os.chdir("/")
    if os.listdir("/"):
        raise OSError("pivot_root: the new root is not empty")


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None
) -> None:
    strings = [
        None if text is None else libc.c_string(text) for text in (source, target, kind, options)
    ]
    source_at, target_at, kind_at, options_at = (
        0 if buffer is None else ctypes.addressof(buffer) for buffer in strings
    )
    libc.syscall("mount", source_at, target_at, kind_at, flags, options_at)
