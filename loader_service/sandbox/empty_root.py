"""A root directory with nothing in it, and no way to put something there.

A device may be granted one file in it, for a library that reads nothing but files: see `RootFile`.
And it may be granted device nodes and empty files, under the paths that they have on the host.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from loader_service.sandbox import libc, policy

_MS_RDONLY: Final = 0x1
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_NOEXEC: Final = 0x8
_MS_REMOUNT: Final = 0x20
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MNT_DETACH: Final = 0x2


@dataclass(frozen=True, slots=True)
class RootFile:
    """The one file of a root that is else empty; it lies in memory."""

    name: str
    bytes: int
    """Most that it can hold."""


def enter_empty_root(
    file: RootFile | None = None, nodes: Sequence[str] = (), empty: Sequence[str] = ()
) -> int | None:
    """Make an empty, read-only file system the root and unmount everything else.

    Needs a mount namespace of its own and CAP_SYS_ADMIN in it. Afterwards no path but `/` resolves
    (not even /proc), so whatever must be read has to be read before. With a `file`, that one is in
    the root too: by name it can only be read, and the descriptor that is returned is the only way
    to write it. Device nodes, by absolute paths, are there as the host has them; one that the host
    does not give is an empty file, as are those of `empty`. Raises `OSError`.
    """
    # Nothing that is mounted or unmounted here may reach the namespace this one was copied from.
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    mount_point = next(path for path in policy.ROOT_MOUNT_POINTS if os.path.isdir(path))
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    writing = None
    files = {*nodes, *empty}
    names = _names(files)
    if file is None and not files:
        _mount("tmpfs", mount_point, "tmpfs", flags | _MS_RDONLY, policy.ROOT_OPTIONS)
    else:
        inodes = 1 + (file is not None) + len(names)
        options = policy.ROOT_WITH_MORE_OPTIONS.format(
            bytes="4k" if file is None else file.bytes, inodes=inodes
        )
        _mount("tmpfs", mount_point, "tmpfs", flags, options)
        for name in names:
            descriptor = _make(
                os.path.join(mount_point, name), is_directory=f"/{name}" not in files
            )
            if descriptor is not None:
                os.close(descriptor)
        if file is not None:
            writing = _make(os.path.join(mount_point, file.name))
        # A second mount of it, which has no writer and can therefore be made read-only. The first
        # goes with the old root, and only the descriptor leads there.
        _mount(mount_point, mount_point, None, _MS_BIND, None)
        _mount(None, mount_point, None, flags | _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None)
        for node in nodes:
            with suppress(OSError):
                _mount(node, os.path.join(mount_point, node.strip("/")), None, _MS_BIND, None)
    os.chdir(mount_point)
    # The old root is stacked on the same place as the new one, so no directory is needed for it.
    here = libc.c_string(".")
    libc.syscall("pivot_root", ctypes.addressof(here), ctypes.addressof(here))
    libc.syscall("umount2", ctypes.addressof(here), _MNT_DETACH)
    os.chdir("/")
    expected = {name for name in names if "/" not in name}
    if set(os.listdir("/")) != expected | ({file.name} if file is not None else set()):
        raise OSError("pivot_root: the new root is not empty")
    return writing


def _names(files: Iterable[str]) -> list[str]:
    """Return what the root must have for these files, the directories first."""
    paths = [PurePosixPath(file) for file in files]
    all_paths = {above for path in paths for above in (path, *path.parents)}
    return sorted(str(path).strip("/") for path in all_paths if path != PurePosixPath("/"))


def _make(path: str, *, is_directory: bool = False) -> int | None:
    """Make a directory, or a file that is returned open for writing."""
    if is_directory:
        os.mkdir(path, 0o555)
        return None
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)


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
