"""What to do about a layer that a host refuses, in words for its administrator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loader_service.sandbox.layers import Layer

_USER_NAMESPACES: Final = (
    "Allow unprivileged user namespaces. On the host: `sysctl user.max_user_namespaces=15000`; on "
    "Debian also `sysctl kernel.unprivileged_userns_clone=1`; on Ubuntu give the service an "
    "AppArmor profile with the rule `userns,` or set "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`. In a container: a seccomp profile "
    "that allows unshare, mount, umount2 and pivot_root (`--security-opt seccomp=<profile>`) and "
    "`--security-opt apparmor=unconfined`."
)
_WITH_USER_NAMESPACE: Final = f"It comes with the user namespace. {_USER_NAMESPACES}"
_CGROUP: Final = (
    "Give the service a cgroup it may divide: a systemd unit with `Delegate=yes`, or "
    "`systemd-run --user --scope -p Delegate=yes <command>`. In a container: a private cgroup "
    "namespace with a writable /sys/fs/cgroup, and no other process beside the service."
)
_KERNEL: Final = "Use a kernel of 5.13 or later"

REMEDIES: Final[Mapping[Layer, str]] = {
    Layer.UNPRIVILEGED_UID: (
        "Run the service as root (the system service does so) if each worker is to have a user of "
        "its own. In a container: keep the capabilities SETUID and SETGID."
    ),
    Layer.USER_NAMESPACE: _USER_NAMESPACES,
    Layer.MOUNT_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.EMPTY_ROOT: _WITH_USER_NAMESPACE,
    Layer.PID_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.NETWORK_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.IPC_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.UTS_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.CGROUP_NAMESPACE: _WITH_USER_NAMESPACE,
    Layer.CAPABILITIES: f"{_KERNEL}; a container's seccomp profile must allow capset and prctl.",
    Layer.NO_NEW_PRIVILEGES: f"{_KERNEL}; a container's seccomp profile must allow prctl.",
    Layer.LANDLOCK: (
        f"{_KERNEL} with CONFIG_SECURITY_LANDLOCK, and `landlock` in its `lsm=` list. In a "
        "container: a seccomp profile that allows the landlock system calls."
    ),
    Layer.NOT_DUMPABLE: f"{_KERNEL}; a container's seccomp profile must allow prctl.",
    Layer.RLIMITS: f"{_KERNEL}; a container's seccomp profile must allow prlimit64.",
    Layer.SECCOMP: (
        f"{_KERNEL} with CONFIG_SECCOMP_FILTER on x86-64 or aarch64. In a container: a seccomp "
        "profile that allows seccomp."
    ),
    Layer.CGROUP_MEMORY: _CGROUP,
    Layer.CGROUP_PIDS: _CGROUP,
    Layer.CGROUP_CPU: _CGROUP,
}
