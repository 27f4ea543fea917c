"""Attributes of the calling process: privileges, dumping, death signal, keyring, name, threads."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from loader_service.sandbox import libc

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_CLONE_THREAD: Final = 0x0001_0000
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_M_ARENA_MAX: Final = -8
_TASKS: Final = "/proc/self/task"

Found = TypeVar("Found")


def set_no_new_privileges() -> None:
    """Make `execve` unable to grant privileges, for good; needed before seccomp and Landlock."""
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if libc.prctl(_PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError("prctl: no_new_privs did not take effect")


def set_dumpable(dumpable: bool) -> None:
    """Say whether this process may be traced by its own user and leave a core dump.

    With `False` its files below /proc belong to root, so only a privileged reader sees them.
    """
    libc.prctl(_PR_SET_DUMPABLE, int(dumpable))
    if libc.prctl(_PR_GET_DUMPABLE) != int(dumpable):
        raise OSError("prctl: the dumpable attribute did not take effect")


def set_parent_death_signal(signal_number: int = signal.SIGKILL) -> None:
    """Send this process `signal_number` when the thread that is its parent ends; 0 takes it back.

    A change of user or group clears it, dropping capabilities does not. A parent that ended before
    this call is not noticed: compare `os.getppid()` afterwards.
    """
    libc.prctl(_PR_SET_PDEATHSIG, signal_number)


def set_child_subreaper(subreaper: bool = True) -> None:
    """Become the parent of orphaned descendants (the broker, so that workers are its children)."""
    libc.prctl(_PR_SET_CHILD_SUBREAPER, int(subreaper))


def set_name(name: str) -> None:
    """Set the name of the calling thread as `ps` shows it; the kernel keeps 15 bytes."""
    buffer = libc.c_string(name)
    libc.prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def join_empty_keyring() -> bool:
    """Leave the inherited session keyring for a new, empty one.

    Returns `False` where the host refuses keyrings altogether, as container runtimes do; then
    there is none to leave.
    """
    try:
        libc.syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, 0)
    except OSError:
        return False
    return True


def use_one_malloc_arena() -> None:
    """Keep glibc to one heap, so that threads do not reserve 64 MiB each under `RLIMIT_DATA`."""
    mallopt = libc.library.mallopt
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt(_M_ARENA_MAX, 1)


def is_single_threaded() -> bool:
    """Whether the calling thread is the only one of its process, asked of the kernel.

    `unshare(CLONE_THREAD)` does nothing in a process of one thread and fails in any other; unlike
    /proc it can also be asked in an empty root.
    """
    try:
        libc.syscall("unshare", _CLONE_THREAD)
    except OSError:
        return False
    return True


def count_threads() -> int:
    """How many threads this process has; reads /proc."""
    return len(os.listdir(_TASKS))


def status_of_threads() -> list[dict[str, str]]:
    """What the kernel tells of each thread of this process, by its names; reads /proc."""
    found = []
    for text in _of_threads(lambda task: Path(task, "status").read_text()):
        lines = (line.partition(":") for line in text.splitlines())
        found.append({name: value.strip() for name, _, value in lines})
    return found


def directories_of_threads() -> list[tuple[str, str]]:
    """The root and the working directory of each thread of this process; reads /proc."""
    return _of_threads(lambda task: (os.readlink(f"{task}/root"), os.readlink(f"{task}/cwd")))


def open_descriptors() -> list[int]:
    """The descriptors of this process, one of which is that of the listing; reads /proc."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _of_threads(look: Callable[[str], Found]) -> list[Found]:
    """Look at each thread by its directory; one that ends meanwhile is left out."""
    found = []
    for task in os.listdir(_TASKS):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(look(f"{_TASKS}/{task}"))
    return found
