"""Attempts to get out, and which layer claims to stop each of them, and how.

A cell that is not here is not claimed: that layer alone lets the attempt through, or this project
does not say.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from loader_service.sandbox.layers import Layer

KILLED = "killed"
Outcome = int | str
"""A negative error number, or `KILLED`."""

ALONE: Mapping[Layer, tuple[Layer, ...]] = {
    Layer.UNPRIVILEGED_UID: (),
    Layer.EMPTY_ROOT: (Layer.USER_NAMESPACE, Layer.MOUNT_NAMESPACE),
    Layer.PID_NAMESPACE: (Layer.USER_NAMESPACE,),
    Layer.NETWORK_NAMESPACE: (Layer.USER_NAMESPACE,),
    Layer.IPC_NAMESPACE: (Layer.USER_NAMESPACE,),
    Layer.CAPABILITIES: (),
    Layer.LANDLOCK: (Layer.NO_NEW_PRIVILEGES,),
    Layer.SECCOMP: (Layer.NO_NEW_PRIVILEGES,),
}
"""The layers that are tried alone, each with what it cannot be entered without."""
LANDLOCK_ABI = {"truncate": 3, "connect by TCP": 4, "connect to an abstract socket": 6, "signal": 6}
"""The Landlock ABI that an attempt needs, where it is not the first."""


@dataclass(frozen=True)
class Attempt:
    """One thing that a worker should not be able to do."""

    name: str
    call: tuple[object, ...]
    """Name and arguments of a system call, or ``function`` of the attacks and its values.

    ``TARGET``, ``PORT``, ``ABSTRACT`` and ``SEGMENT`` stand for what the test has ready outside.
    """
    seccomp: Outcome
    """With every layer, and with seccomp alone."""
    others: Mapping[Layer, Outcome] = field(default_factory=dict)
    """With one other layer alone."""
    bare: bool = False
    """Whether it succeeds without any layer, for root and for an ordinary user: tried as well."""
    root_only: bool = False
    """Whether `bare` and `others` hold only for a service that runs as root."""


def _file(name: str, *call: object, bare: bool = True, seccomp: Outcome = KILLED) -> Attempt:
    others = {Layer.EMPTY_ROOT: -errno.ENOENT, Layer.LANDLOCK: -errno.EACCES}
    return Attempt(name, call, seccomp, others, bare)


def _by_path(name: str, *call: object, bare: bool = True, seccomp: Outcome = KILLED) -> Attempt:
    """An attempt that Landlock does not claim: nothing is read or written."""
    return Attempt(name, call, seccomp, {Layer.EMPTY_ROOT: -errno.ENOENT}, bare)


def _privileged(name: str, *call: object) -> Attempt:
    return Attempt(name, call, KILLED, {Layer.CAPABILITIES: -errno.EPERM})


def _plain(name: str, *call: object, bare: bool = False) -> Attempt:
    return Attempt(name, call, KILLED, {}, bare)


HERE = -100  # AT_FDCWD
NOBODY = 1 << 22
"""A process id that Linux never gives away. What is tried must do no harm if it should succeed."""
READ_ONLY, READ_WRITE, CREATE, PATH_ONLY = 0, 2, 0o101, 0o10_000_000
REFUSED = -errno.EACCES
NEW_NAMESPACES = {
    "user": 0x1000_0000,
    "mount": 0x0002_0000,
    "pid": 0x2000_0000,
    "network": 0x4000_0000,
    "ipc": 0x0800_0000,
    "host name": 0x0400_0000,
    "cgroup": 0x0200_0000,
}
HANDLE = {"zeros": 136}
SOME_HANDLE = {"hex": "0800000001000000" + "00" * 8}

FILES = (
    _file("open a file", "open", "/etc/passwd", READ_ONLY, seccomp=REFUSED),
    _file("open a file from here", "openat", HERE, "/etc/passwd", READ_ONLY, seccomp=REFUSED),
    _file("open a file the new way", "openat2", HERE, "/etc/passwd", {"zeros": 24}, 24),
    _file("list the root", "open", "/etc", 0o200_000, seccomp=REFUSED),
    _by_path("name a file without opening it", "open", "/etc", PATH_ONLY, seccomp=REFUSED),
    _file("create a file", "creat", "/var/tmp/probe", 0o600, bare=False),
    _file("open for writing", "open", "/var/tmp/probe", CREATE, 0o600, bare=False, seccomp=REFUSED),
    _file("make a directory", "mkdir", "/var/tmp/probe", 0o700, bare=False),
    _file("make a symbolic link", "symlink", "/etc/passwd", "/var/tmp/probe", bare=False),
    _by_path("look at a file", "stat", "/etc/passwd", {"zeros": 144}, seccomp=REFUSED),
    _by_path("ask for access", "access", "/etc/passwd", 0, seccomp=REFUSED),
    _by_path("go elsewhere", "chdir", "/etc"),
    _by_path("read a link", "readlink", "/proc/self/exe", {"zeros": 99}, 99, seccomp=REFUSED),
    _plain("watch a file", "inotify_add_watch", -1, "/etc/passwd", 1),
    _by_path("make a handle of a file", "name_to_handle_at", HERE, "/etc/passwd", HANDLE, HANDLE,
             0, bare=False),
    _privileged("open by handle", "open_by_handle_at", HERE, SOME_HANDLE, 0),
    _file("read one's own memory", "open", "/proc/self/mem", READ_WRITE, seccomp=REFUSED),
    _file("read one's own mappings", "open", "/proc/self/maps", READ_ONLY, seccomp=REFUSED),
    _file("open a descriptor anew", "open", "/proc/self/fd/0", READ_ONLY, seccomp=REFUSED),
    _file("read the kernel's settings", "open", "/proc/version", READ_ONLY, seccomp=REFUSED),
    _file("read the devices", "open", "/sys/kernel/mm", READ_ONLY, seccomp=REFUSED),
    _file("open a device", "open", "/dev/null", READ_WRITE, seccomp=REFUSED),
    _file("execute a program", "execve", "/bin/true", 0, 0, bare=False),
    _file("execute a program from here", "execveat", HERE, "/bin/true", 0, 0, 0, bare=False),
    Attempt(
        "read the shadow file", ("open", "/etc/shadow", READ_ONLY), REFUSED,
        {Layer.UNPRIVILEGED_UID: REFUSED, Layer.EMPTY_ROOT: -errno.ENOENT,
         Layer.LANDLOCK: REFUSED},
        bare=True, root_only=True,
    ),
)  # fmt: skip
"""Files by every road."""

MOUNTS = (
    _privileged("mount a file system", "mount", "probe", "/", "no-such-type", 0, 0),
    _privileged("unmount one", "umount2", "/etc", 0),
    _privileged("exchange the root", "pivot_root", "/", "/"),
    _privileged("change the root", "chroot", "/"),
    _privileged("open a tree", "open_tree", HERE, "/", 1),
    _privileged("open a new file system", "fsopen", "tmpfs", 0),
    *(
        (_plain if kind == "user" else _privileged)(f"unshare the {kind}", "unshare", flag)
        for kind, flag in NEW_NAMESPACES.items()
    ),
    _plain("enter a namespace", "setns", 0, 0),
    _privileged("change the host's name", "sethostname", "probe", -1),
)
"""Mounts and namespaces."""

NETWORK = (
    *(_plain(f"a socket of family {family}", "socket", family, 1, 0) for family in range(46)),
    _plain("a pair of sockets", "socketpair", 1, 1, 0, {"zeros": 8}, bare=True),
    _plain("listen on the channel", "listen", 4, 1),
    _plain("accept on the channel", "accept", 4, 0, 0),
    _plain("send a message", "sendmsg", 4, {"zeros": 56}, 0),
    _plain("receive a message", "recvmsg", 4, {"zeros": 56}, 0),
    _plain("send many messages", "sendmmsg", 4, {"zeros": 64}, 1, 0),
    Attempt(
        "connect by TCP", ("connect", 2, "PORT"), KILLED,
        {Layer.NETWORK_NAMESPACE: -errno.ENETUNREACH, Layer.LANDLOCK: REFUSED}, bare=True,
    ),
    Attempt(
        "connect to an abstract socket", ("connect", 1, "ABSTRACT"), KILLED,
        {Layer.NETWORK_NAMESPACE: -errno.ECONNREFUSED, Layer.LANDLOCK: -errno.EPERM}, bare=True,
    ),
)  # fmt: skip
"""Sockets of every family."""

PROCESSES = (
    _plain("fork", "fork"),
    _plain("vfork", "vfork"),
    _plain("clone a process", "clone", 17, 0, 0, 0, 0),
    _plain("clone into namespaces", "clone", 0x7E02_0011, 0, 0, 0, 0),
    Attempt("clone with flags in memory", ("clone3", {"zeros": 88}, 88), -errno.ENOSYS),
    Attempt(
        "signal", ("kill", "TARGET", 0), KILLED,
        {Layer.PID_NAMESPACE: -errno.ESRCH, Layer.LANDLOCK: -errno.EPERM}, bare=True,
    ),
    Attempt(
        "signal another user", ("kill", "TARGET", 0), KILLED,
        {Layer.UNPRIVILEGED_UID: -errno.EPERM}, bare=True, root_only=True,
    ),
    Attempt(
        "signal a thread elsewhere", ("tgkill", "TARGET", "TARGET", 0), KILLED,
        {Layer.PID_NAMESPACE: -errno.ESRCH}, bare=True,
    ),
    _plain("signal everybody", "kill", -1, 0),
    _plain("kill oneself with another signal", "tgkill", 1, 1, 9),
    _plain("stop oneself", "tgkill", 1, 1, 19),
    _plain("signal oneself the old way", "tkill", NOBODY, 6),
    _plain("queue a signal", "rt_sigqueueinfo", NOBODY, 10, {"zeros": 128}),
    Attempt(
        "trace", ("ptrace", 16, "TARGET", 0, 0), KILLED,
        {Layer.PID_NAMESPACE: -errno.ESRCH},
    ),
    Attempt(
        "seize another user's process", ("ptrace", 0x4206, "TARGET", 0, 0), KILLED,
        {Layer.UNPRIVILEGED_UID: -errno.EPERM}, root_only=True,
    ),
    _plain("be traced", "ptrace", 0, 0, 0, 0),
    Attempt(
        "read another's memory", ("read_process", "TARGET", 4096), KILLED,
        {Layer.PID_NAMESPACE: -errno.ESRCH},
    ),
    _plain("write another's memory", "process_vm_writev", 1, 0, 0, 0, 0, 0),
    Attempt(
        "open a process", ("pidfd_open", "TARGET", 0), KILLED,
        {Layer.PID_NAMESPACE: -errno.ESRCH}, bare=True,
    ),
    _plain("take another's descriptor", "pidfd_getfd", 4, 0, 0),
    _plain("signal by descriptor", "pidfd_send_signal", 4, 0, 0, 0),
    _plain("compare with another", "kcmp", 1, 1, 0, 0, 0),
    _plain("advise another", "process_madvise", 4, 0, 0, 0, 0),
    _plain("wait for a child", "wait4", -1, 0, 0, 0),
    _plain("change one's priority", "setpriority", 0, 0, -20),
    _plain("change one's scheduling", "sched_setscheduler", 0, 1, {"zeros": 8}),
)  # fmt: skip
"""Other processes, and more of oneself."""

MEMORY = (
    _plain("map executable memory", "mmap", 0, 4096, 5, 0x22, -1, 0),
    _plain("map writable executable memory", "mmap", 0, 4096, 7, 0x22, -1, 0),
    _plain("map a descriptor", "mmap", 0, 4096, 1, 2, 0, 0),
    _plain("make the heap executable", "mprotect", 0x10000, 4096, 7),
    _plain("make memory executable with a key", "pkey_mprotect", 0x10000, 4096, 5, -1),
    _plain("map pages anew", "remap_file_pages", 0x10000, 4096, 0, 0, 0),
    _plain("a file in memory", "memfd_create", "probe", 0, bare=True),
    _plain("a secret file in memory", "memfd_secret", 0),
    _plain("faults handled by oneself", "userfaultfd", 1),
    Attempt(
        "a shared segment of the host", ("shmget", "SEGMENT", 0, 0), KILLED,
        {Layer.IPC_NAMESPACE: -errno.ENOENT}, bare=True,
    ),
    _plain("a message queue", "mq_open", "probe", 0, 0, 0),
    _plain("lock memory", "mlockall", 3),
    _plain("a shadow stack", "map_shadow_stack", 0, 4096, 0),
)  # fmt: skip
"""Executable memory, and memory that others see."""

KERNEL = (
    _plain("an io_uring", "io_uring_setup", 1, {"zeros": 120}),
    _plain("an io_uring's work", "io_uring_enter", 4, 1, 0, 0, 0, 0),
    _plain("asynchronous input and output", "io_setup", 1, {"zeros": 8}),
    _plain("a BPF program", "bpf", 5, {"zeros": 128}, 128),
    _plain("performance counters", "perf_event_open", {"zeros": 128}, 0, -1, -1, 0),
    _plain("add a key", "add_key", "user", "probe", "x", 1, -3),
    _plain("ask for a key", "request_key", "user", "probe", 0, -3),
    _plain("read a keyring", "keyctl", 11, -3, 0, 0),
    _plain("load a module", "init_module", {"zeros": 8}, 8, ""),
    _plain("load a kernel", "kexec_load", 0, 0, 0, 0),
    _plain("set the clock", "settimeofday", 0, 0),
    _plain("restart the machine", "reboot", 0, 0, 0, 0),
    _plain("read the kernel's log", "syslog", 10, 0, 0),
    _plain("another personality", "personality", 0x0400_0000),
    _plain("another segment base", "arch_prctl", 0x1002, 0),
    _plain("other descriptors' tables", "modify_ldt", 0, 0, 0),
    _plain("change user", "setuid", 0),
    _plain("change group", "setgid", 0),
    _plain("change capabilities", "capset", {"zeros": 8}, {"zeros": 24}),
    _plain("another filter", "seccomp", 1, 0, 0),
    _plain("be dumpable", "prctl", 4, 1),
    _plain("let somebody trace", "prctl", 0x59616D61, -1),
    _plain("keep capabilities", "prctl", 8, 1),
    _plain("outlive the parent", "prctl", 1, 0),
    _plain("turn the filter off", "prctl", 22, 0),
    _plain("change the secure bits", "prctl", 28, 0),
    _plain("move the program's marks", "prctl", 35, 13, 0),
    _plain("adopt orphans", "prctl", 36, 1),
    Attempt("raise a limit", ("set_limit", 7, "00" * 2 + "01" + "00" * 5 + "00" * 2 + "01"
            + "00" * 5), -errno.EPERM),
    _plain("raise a limit the old way", "setrlimit", 7, {"zeros": 16}),
    _plain("a timer", "timer_create", 0, 0, {"zeros": 8}),
    _plain("an alarm", "alarm", 1),
    _plain("copy a descriptor", "dup", 4),
    _plain("change a descriptor", "fcntl", 4, 0, 9),
    _plain("a pipe", "pipe", {"zeros": 8}, bare=True),
    _plain("an event", "eventfd2", 0, 0, bare=True),
)  # fmt: skip
"""The kernel's other interfaces, and what would undo the protection."""

ATTEMPTS = (*FILES, *MOUNTS, *NETWORK, *PROCESSES, *MEMORY, *KERNEL)
