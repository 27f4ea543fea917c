"""The protections around a worker, by stable names that reports, logs and tests share."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Layer(StrEnum):
    """One protection that can be entered, refused by the host, and reported."""

    UNPRIVILEGED_UID = "unprivileged-uid"
    USER_NAMESPACE = "user-namespace"
    MOUNT_NAMESPACE = "mount-namespace"
    EMPTY_ROOT = "empty-root"
    PID_NAMESPACE = "pid-namespace"
    NETWORK_NAMESPACE = "network-namespace"
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    CGROUP_NAMESPACE = "cgroup-namespace"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    LANDLOCK = "landlock"
    NOT_DUMPABLE = "not-dumpable"
    RLIMITS = "rlimits"
    SECCOMP = "seccomp"
    CGROUP_MEMORY = "cgroup-memory"
    CGROUP_PIDS = "cgroup-pids"
    CGROUP_CPU = "cgroup-cpu"


MINIMUM: Final = frozenset({Layer.NO_NEW_PRIVILEGES, Layer.SECCOMP, Layer.RLIMITS})
"""Without these no worker starts: a host that refuses one of them cannot run the service."""

CGROUP_LAYERS: Final = frozenset({Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS, Layer.CGROUP_CPU})
"""What the broker puts around a worker from outside."""

PROCESS_LAYERS: Final = frozenset(Layer) - CGROUP_LAYERS
"""What a worker enters itself, or its intermediate process for it."""

DESCRIPTIONS: Final[Mapping[Layer, str]] = {
    Layer.UNPRIVILEGED_UID: (
        "The worker runs under a user and group of its own, which own no file and no other process."
    ),
    Layer.USER_NAMESPACE: (
        "The worker's user is known by that number only inside; outside it has no rights at all."
    ),
    Layer.MOUNT_NAMESPACE: "The worker's view of mounted file systems is its own.",
    Layer.EMPTY_ROOT: (
        "The worker's root directory is an empty, read-only file system with room for no file."
    ),
    Layer.PID_NAMESPACE: "The worker sees no other process and can signal none.",
    Layer.NETWORK_NAMESPACE: "The worker has no network interface, not even a working loopback.",
    Layer.IPC_NAMESPACE: "The worker shares no System V or POSIX message queue or memory segment.",
    Layer.UTS_NAMESPACE: "The worker sees a neutral host name.",
    Layer.CGROUP_NAMESPACE: (
        "Of the cgroup tree the worker can see no more than the service's own part."
    ),
    Layer.CAPABILITIES: "The worker holds no capability and can never gain one.",
    Layer.NO_NEW_PRIVILEGES: "Running a set-user-ID program would give the worker nothing.",
    Layer.LANDLOCK: (
        "The kernel's Landlock module refuses the worker every file, TCP port, device control, "
        "abstract socket and outside signal that it can refuse."
    ),
    Layer.NOT_DUMPABLE: (
        "No process of the same user can read the worker's memory, and it leaves no core dump."
    ),
    Layer.RLIMITS: (
        "Resource limits cap the worker's threads, descriptors, files, locked memory and queues."
    ),
    Layer.SECCOMP: (
        "The kernel kills the worker at the first system call outside a short list, and refuses "
        "executable memory."
    ),
    Layer.CGROUP_MEMORY: "The kernel counts and caps the worker's memory, page cache included.",
    Layer.CGROUP_PIDS: "The kernel caps how many threads and processes the worker can have.",
    Layer.CGROUP_CPU: (
        "The kernel divides processor time equally among users, among a user's origins and among "
        "an origin's workers, and caps a worker's share where that is limited."
    ),
}
"""What each layer does, in one sentence: `doctor` and the documentation print these."""
