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


@dataclass(frozen=True, slots=True)
class EmptyRoot:
    """A file system that is ready to become the root: mounted, and not entered yet."""

    where: str
    names: frozenset[str]
    """What lies directly in it."""
    writing: int | None
    """The descriptor that writes the granted file, if there is one."""

    def enter(self) -> None:
        """Make it the root of every process of this mount namespace, and unmount everything else.

        A process whose working directory is not the old root keeps that one. Raises `OSError`.
        """
        os.chdir(self.where)
        # The old root is stacked on the place of the new one, so no directory is needed for it.
        here = libc.c_string(".")
        libc.syscall("pivot_root", ctypes.addressof(here), ctypes.addressof(here))
        libc.syscall("umount2", ctypes.addressof(here), _MNT_DETACH)
        os.chdir("/")
        if set(os.listdir("/")) != self.names or not os.path.samefile("/", policy.ABOVE_ROOT):
            raise OSError("pivot_root: the new root is not empty")


def lay_empty_root(
    where: str,
    file: RootFile | None = None,
    nodes: Sequence[str] = (),
    empty: Sequence[str] = (),
) -> EmptyRoot:
    """Mount an empty, read-only file system on the directory `where`.

    Needs a mount namespace of its own and CAP_SYS_ADMIN in it. With a `file`, that one is in the
    root too: by name it can only be read, and the descriptor that is returned is the only way to
    write it. Device nodes, by absolute paths, are there as the host has them; one that the host
    does not give is an empty file, as are those of `empty`. Raises `OSError`.
    """
    # Nothing that is mounted or unmounted here may reach the namespace this one was copied from.
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    writing = None
    files = {*nodes, *empty}
    names = _names(files)
    if file is None and not files:
        _mount("tmpfs", where, "tmpfs", flags | _MS_RDONLY, policy.ROOT_OPTIONS)
    else:
        inodes = 1 + (file is not None) + len(names)
        options = policy.ROOT_WITH_MORE_OPTIONS.format(
            bytes="4k" if file is None else file.bytes, inodes=inodes
        )
        writable = mount_point()
        _mount("tmpfs", writable, "tmpfs", flags, options)
        for name in names:
            _make(os.path.join(writable, name), is_directory=f"/{name}" not in files)
        if file is not None:
            writing = _open_new(os.path.join(writable, file.name))
        # A second mount of it, which has no writer and can therefore be made read-only. To the
        # first then only the descriptor leads.
        _mount(writable, where, None, _MS_BIND, None)
        _mount(None, where, None, flags | _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None)
        for node in nodes:
            with suppress(OSError):
                _mount(node, os.path.join(where, node.strip("/")), None, _MS_BIND, None)
        if where != writable:
            # Else it goes with the old root.
            target = libc.c_string(writable)
            libc.syscall("umount2", ctypes.addressof(target), _MNT_DETACH)
    top = {name for name in names if "/" not in name} | ({file.name} if file else set())
    return EmptyRoot(where, frozenset(top), writing)


def enter_empty_root(
    file: RootFile | None = None, nodes: Sequence[str] = (), empty: Sequence[str] = ()
) -> int | None:
    """Lay an empty root and enter it: afterwards no path but `/` and what is granted resolves.

    Not even /proc, so whatever must be read has to be read before. Returns the descriptor that
    writes the `file`. Raises `OSError`; see `lay_empty_root`.
    """
    root = lay_empty_root(mount_point(), file, nodes, empty)
    root.enter()
    return root.writing


def mount_point() -> str:
    """Return a directory of this host that the empty root may hide."""
    return next(path for path in policy.ROOT_MOUNT_POINTS if os.path.isdir(path))


def _names(files: Iterable[str]) -> list[str]:
    """Return what the root must have for these files, the directories first."""
    paths = [PurePosixPath(file) for file in files]
    all_paths = {above for path in paths for above in (path, *path.parents)}
    return sorted(str(path).strip("/") for path in all_paths if path != PurePosixPath("/"))


def _make(path: str, *, is_directory: bool) -> None:
    """Make a directory, or an empty file, that any user may look at."""
    if is_directory:
        os.mkdir(path)
        os.chmod(path, 0o555)
    else:
        os.close(_open_new(path))


def _open_new(path: str) -> int:
    """Make a file that any user may read, and return it open for writing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    os.fchmod(descriptor, 0o444)
    return descriptor


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
