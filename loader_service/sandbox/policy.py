"""The values of the sandbox: which system calls, which limits, which rights. No mechanism.

Mechanism files import this one; it imports none of them. The documentation's table of system
calls is made from `WORKER_SYSTEM_CALLS`.
"""

from __future__ import annotations

import errno
import mmap
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

# --- System calls -------------------------------------------------------------------------------


class OwnProcess(Enum):
    """Stands for the worker's own process id, known only when the filter is compiled."""

    ID = "own process id"


@dataclass(frozen=True)
class Allow:
    """The kernel carries the call out."""


@dataclass(frozen=True)
class Fail:
    """The call returns -1 with this error number, and nothing else happens."""

    error: int


@dataclass(frozen=True)
class Kill:
    """The process ends at once with SIGSYS."""


Action = Allow | Fail | Kill

INT: Final = 0xFFFF_FFFF
"""Mask for an argument the kernel takes as a 32-bit `int`: it ignores the upper half."""
LONG: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Mask for an argument the kernel takes whole: `long` or an address."""


@dataclass(frozen=True)
class Condition:
    """`arguments[argument] & mask == value`."""

    argument: int
    mask: int
    value: int | OwnProcess


@dataclass(frozen=True)
class Case:
    """`action` when every condition holds."""

    conditions: tuple[Condition, ...]
    action: Action


@dataclass(frozen=True)
class Rule:
    """What happens on one system call: the first case that holds, else `otherwise`."""

    name: str
    otherwise: Action
    reason: str
    cases: tuple[Case, ...] = ()


def _allow(name: str, reason: str) -> Rule:
    return Rule(name, Allow(), reason)


def _fail(name: str, error: int, reason: str) -> Rule:
    return Rule(name, Fail(error), reason)


def _allow_if(
    name: str, *alternatives: tuple[Condition, ...], otherwise: Action, reason: str
) -> Rule:
    return Rule(name, otherwise, reason, tuple(Case(all_of, Allow()) for all_of in alternatives))


def _one_of(
    argument: int, values: tuple[int, ...], mask: int = INT
) -> tuple[tuple[Condition, ...], ...]:
    return tuple((Condition(argument, mask, value),) for value in values)


_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_FUTEX_WAIT_BITSET: Final = 9
_FUTEX_WAKE_BITSET: Final = 10
_FUTEX_FLAGS: Final = 128 | 256  # FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME

_MADV_DONTNEED: Final = 4
_MADV_FREE: Final = 8
_MADV_HUGEPAGE: Final = 14
_MADV_NOHUGEPAGE: Final = 15

_PR_SET_NAME: Final = 15
_PR_SET_VMA: Final = 0x5356_4D41

THREAD_FLAGS: Final = (
    0x0000_0100  # CLONE_VM
    | 0x0000_0200  # CLONE_FS
    | 0x0000_0400  # CLONE_FILES
    | 0x0000_0800  # CLONE_SIGHAND
    | 0x0001_0000  # CLONE_THREAD
    | 0x0004_0000  # CLONE_SYSVSEM
    | 0x0008_0000  # CLONE_SETTLS
    | 0x0010_0000  # CLONE_PARENT_SETTID
    | 0x0020_0000  # CLONE_CHILD_CLEARTID
)
"""Exactly what glibc's `pthread_create` passes to clone(2)."""

_NULL: Final = 0

WORKER_SYSTEM_CALLS: Final[tuple[Rule, ...]] = (
    # Steady state, hottest first: the filter is searched in this order.
    _allow_if(
        "futex",
        *_one_of(
            1,
            (_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET),
            INT & ~_FUTEX_FLAGS,
        ),
        otherwise=Fail(errno.ENOSYS),
        reason="locks and thread pools; waiting and waking only, not priority inheritance",
    ),
    _allow_if(
        "recvfrom",
        (Condition(4, LONG, _NULL),),
        otherwise=Kill(),
        reason="reads the channel and the control socket; never with an address, never descriptors",
    ),
    _allow("writev", "answers on the channel"),
    _allow("read", "reads the channel"),
    _allow("write", "answers on the channel, messages on standard error"),
    _allow("readv", "reads the channel"),
    _allow_if(
        "sendto",
        (Condition(4, LONG, _NULL),),
        otherwise=Kill(),
        reason="answers on the control socket without waiting; never with an address",
    ),
    _allow("poll", "waits for one of several channels"),
    _allow("ppoll", "waits for one of several channels"),
    _allow("close", "gives a channel back"),
    _allow("sched_yield", "thread pools that spin"),
    _allow("clock_gettime", "deadlines, where the clock is not readable without the kernel"),
    _allow("gettimeofday", "deadlines, where the clock is not readable without the kernel"),
    _allow("clock_nanosleep", "a back-off or a timed wait in a runtime"),
    _allow("nanosleep", "a back-off or a timed wait in a runtime"),
    _allow("restart_syscall", "the kernel makes it itself when a wait goes on after a stop"),
    # Memory: data only.
    _allow_if(
        "mmap",
        (
            Condition(2, mmap.PROT_EXEC, 0),
            Condition(3, mmap.MAP_ANONYMOUS, mmap.MAP_ANONYMOUS),
        ),
        otherwise=Kill(),
        reason="memory for tensors and thread stacks; never executable, never of a file",
    ),
    _allow("munmap", "gives memory back"),
    _allow("brk", "the allocator's heap"),
    _allow("mremap", "grows a large block"),
    _allow_if(
        "madvise",
        *_one_of(2, (_MADV_DONTNEED, _MADV_FREE, _MADV_HUGEPAGE, _MADV_NOHUGEPAGE)),
        otherwise=Fail(errno.EINVAL),
        reason="gives memory back or asks for huge pages (NumPy); other advice is refused",
    ),
    _allow_if(
        "mprotect",
        (Condition(2, mmap.PROT_EXEC, 0),),
        otherwise=Kill(),
        reason="guard pages and heap growth; never executable",
    ),
    # Threads.
    _allow_if(
        "clone",
        (Condition(0, LONG, THREAD_FLAGS),),
        otherwise=Kill(),
        reason="a thread, with exactly the flags of glibc's pthread_create; never a process",
    ),
    _fail("clone3", errno.ENOSYS, "its flags lie in memory, out of a filter's sight: use clone"),
    _allow("rseq", "the start of a thread"),
    _allow("set_robust_list", "the start of a thread"),
    _allow("rt_sigprocmask", "the start and the end of a thread"),
    _allow("rt_sigaction", "the first thread; a handler can only run code that is there already"),
    _allow("rt_sigreturn", "the end of a signal handler"),
    _allow_if(
        "sched_getaffinity",
        (Condition(0, INT, 0),),
        otherwise=Fail(errno.EPERM),
        reason="how many processors there are; of the asking thread only",
    ),
    Rule(
        "prctl",
        Kill(),
        "names a thread; naming memory fails with EINVAL, as in a kernel without it",
        (
            Case((Condition(0, INT, _PR_SET_NAME),), Allow()),
            Case((Condition(0, INT, _PR_SET_VMA),), Fail(errno.EINVAL)),
        ),
    ),
    _allow("getpid", "the first half of abort()"),
    _allow("gettid", "the first half of abort(), names of threads in messages"),
    _allow("getuid", "LiteRT asks it when it looks for its settings"),
    _allow("getrandom", "hash seeds, and operators that draw random numbers"),
    # The end.
    _allow_if(
        "tgkill",
        (Condition(0, INT, OwnProcess.ID), Condition(2, INT, signal.SIGABRT)),
        otherwise=Kill(),
        reason="the second half of abort(): SIGABRT to the worker itself, no other signal",
    ),
    _allow("exit", "the end of a thread"),
    _allow("exit_group", "the end of the worker"),
    # Python and the C library try these for a traceback, a late import or a terminal: they are
    # told no and go on.
    _fail("openat", errno.EACCES, "tracebacks and late imports look for files"),
    _fail("open", errno.EACCES, "tracebacks and late imports look for files"),
    _fail("newfstatat", errno.EACCES, "late imports look for files"),
    _fail("stat", errno.EACCES, "late imports look for files"),
    _fail("lstat", errno.EACCES, "late imports look for files"),
    _fail("fstat", errno.EACCES, "opening a descriptor as a file looks at it"),
    _fail("statx", errno.EACCES, "late imports look for files"),
    _fail("access", errno.EACCES, "late imports look for files"),
    _fail("faccessat", errno.EACCES, "late imports look for files"),
    _fail("faccessat2", errno.EACCES, "late imports look for files"),
    _fail("readlink", errno.EACCES, "late imports look for files"),
    _fail("readlinkat", errno.EACCES, "late imports look for files"),
    _fail("getcwd", errno.EACCES, "tracebacks make paths absolute"),
    _fail("getdents64", errno.EACCES, "late imports list directories"),
    _fail("ioctl", errno.ENOTTY, "asking whether a descriptor is a terminal"),
    _fail("lseek", errno.ESPIPE, "opening a descriptor as a file asks where it stands"),
    _fail("sysinfo", errno.EPERM, "sorting asks how much memory the machine has"),
    _fail("uname", errno.EPERM, "asking what the machine is called"),
    _fail("sched_setaffinity", errno.EPERM, "a thread pool that wants certain processors"),
    _allow_if(
        "prlimit64",
        (Condition(0, INT, 0), Condition(2, LONG, _NULL)),
        otherwise=Fail(errno.EPERM),
        reason="reading one's own limits, as asking for a thread's stack size does; never setting",
    ),
)
"""Everything a worker may do after lock-down. A call that is not here kills it."""

UNLISTED: Final[Action] = Kill()
"""A call without a rule, of a foreign architecture, or of the x32 calling convention."""

# --- Resource limits ----------------------------------------------------------------------------

OPEN_DESCRIPTORS: Final = 8
"""`RLIMIT_NOFILE`: the worker's five descriptors and what a library may hold by accident."""

CPU_GRACE_SECONDS: Final = 2
"""Between the soft CPU limit, which names its cause, and the hard one, which cannot be ignored."""


def tasks_for(threads: int, interpreters: int = 2) -> int:
    """How many tasks (threads as the kernel counts them) a worker's interpreters can need.

    An interpreter of one thread starts none. One of n threads starts, in the worst model measured,
    n - 1 for XNNPACK, n - 1 for ruy and n for Eigen (tflite-runtime 2.14; LiteRT 2.3 stays
    below that). A thread pool that gets fewer than it asks for hangs or crashes, so the limit must
    not be tighter.
    """
    return 1 if threads == 1 else 1 + interpreters * (3 * threads - 2)


# --- Users --------------------------------------------------------------------------------------

UID_RANGE: Final = range(1_900_000_000, 1_900_065_536)
"""Users for workers. systemd's table of user ids leaves 1879048192 upwards unused."""

FALLBACK_UID_RANGE: Final = range(61_184, 65_520)
"""Where the host (a container, say) maps only 65,536 ids: systemd's range for dynamic users."""

INSIDE_UID: Final = 1000
"""The worker's user and group inside its user namespace: neither root nor the overflow user."""

HOST_NAME: Final = "worker"
"""What the UTS namespace answers."""

# --- Empty root ---------------------------------------------------------------------------------

ABOVE_ROOT: Final = "/.."
"""What is mounted here is found by this path only, and hides nothing: the kernel goes up to what is
stacked on the root for no other one."""

ROOT_MOUNT_POINTS: Final = ("/tmp", "/proc", "/var", ABOVE_ROOT)
"""Directories on which the empty root may be mounted before it becomes the root."""

ROOT_OPTIONS: Final = "size=4k,nr_inodes=1,mode=0555"
"""One page and one inode: the root directory itself is all there is room for."""

ROOT_WITH_MORE_OPTIONS: Final = "size={bytes},nr_inodes={inodes},mode=0555"
"""The root of a worker whose device is granted a file or device nodes: those and nothing else."""

DESCRIPTORS_OF_A_NODE: Final = 4
"""How often a device may open each of the device nodes that it is granted."""

# --- Landlock -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LandlockRights:
    """What a Landlock ABI version can refuse; all of it is refused."""

    file_system: int
    network: int
    scopes: int


LANDLOCK_RIGHTS: Final[Mapping[int, LandlockRights]] = {
    1: LandlockRights((1 << 13) - 1, 0, 0),  # execute … make_sym
    2: LandlockRights((1 << 14) - 1, 0, 0),  # refer
    3: LandlockRights((1 << 15) - 1, 0, 0),  # truncate
    4: LandlockRights((1 << 15) - 1, 0b11, 0),  # bind and connect TCP
    5: LandlockRights((1 << 16) - 1, 0b11, 0),  # ioctl on devices
    6: LandlockRights((1 << 16) - 1, 0b11, 0b11),  # abstract Unix sockets, signals
}
"""By ABI version, each with what the ones before it know; a newer kernel gets the last."""
