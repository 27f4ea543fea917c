"""How each layer is tried: entering it, then looking at what it is for. Each in its own process.

An attempt returns what was seen, in words. Any exception is a refusal.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from loader_service.sandbox import (
    capabilities,
    credentials,
    empty_root,
    landlock,
    namespaces,
    policy,
    process,
    resource_limits,
    seccomp,
)
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.resource_limits import ResourceLimits
from loader_service.sandbox.syscall_tables import host_architecture


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


def _unprivileged_uid() -> str:
    pool = credentials.UidPool.for_this_host()
    _expect(pool is not None, "the service does not run as root: all workers share its user")
    assert pool is not None
    uid = pool.take()
    credentials.change_user(uid)
    try:
        os.setuid(0)
    except PermissionError:
        return f"became user {uid} and could not go back"
    raise RuntimeError("the former user could be taken back")


def _user_namespace() -> str:
    namespaces.enter_user_namespace()
    _expect(os.getuid() == policy.INSIDE_UID, f"the user inside is {os.getuid()}")
    return f"the user is {policy.INSIDE_UID} inside"


def _enter(layer: Layer) -> None:
    """Enter one namespace the way workers do: in a user namespace if the host has any."""
    link = {
        Layer.MOUNT_NAMESPACE: "mnt",
        Layer.NETWORK_NAMESPACE: "net",
        Layer.IPC_NAMESPACE: "ipc",
        Layer.UTS_NAMESPACE: "uts",
        Layer.CGROUP_NAMESPACE: "cgroup",
    }.get(layer)
    try:
        namespaces.enter_user_namespace()
    except OSError:
        if os.geteuid() != 0:
            raise
    before = link and os.readlink(f"/proc/self/ns/{link}")
    namespaces.enter_namespace(layer)
    after = link and os.readlink(f"/proc/self/ns/{link}")
    _expect(link is None or before != after, "the namespace is still the host's")


def _mount_namespace() -> str:
    _enter(Layer.MOUNT_NAMESPACE)
    return "mounts are its own"


def _empty_root() -> str:
    _enter(Layer.MOUNT_NAMESPACE)
    empty_root.enter_empty_root()
    _expect(not os.listdir("/"), "the root directory is not empty")
    try:
        os.mkdir("/made")
    except OSError:
        return "the root directory is empty and takes no file"
    raise RuntimeError("a directory could be made in the root")


def _pid_namespace() -> str:
    _enter(Layer.PID_NAMESPACE)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    _, status = os.waitpid(pid, 0)
    _expect(status == 0, "the child is not process 1")
    return "a child is process 1"


def _network_namespace() -> str:
    _enter(Layer.NETWORK_NAMESPACE)
    interfaces = {name for _, name in socket.if_nameindex()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("127.0.0.1", 9))
        except OSError:
            return f"no address can be reached (interfaces: {', '.join(sorted(interfaces))})"
    raise RuntimeError("the loopback interface works")


def _ipc_namespace() -> str:
    _enter(Layer.IPC_NAMESPACE)
    return "System V and POSIX queues are its own"


def _uts_namespace() -> str:
    _enter(Layer.UTS_NAMESPACE)
    _expect(os.uname().nodename == policy.HOST_NAME, "the host name is still the host's")
    return f"the host name is {policy.HOST_NAME!r}"


def _cgroup_namespace() -> str:
    _enter(Layer.CGROUP_NAMESPACE)
    lines = Path("/proc/self/cgroup").read_text().split()
    _expect(all(line.endswith(":/") for line in lines), "the cgroup's path can still be seen")
    return "its cgroup looks like the root"


def _capabilities() -> str:
    capabilities.drop_all()
    bounding = capabilities.bounding_set()
    return "every set is empty" if not bounding else "every set but the bounding set is empty"


def _no_new_privileges() -> str:
    process.set_no_new_privileges()
    _expect("NoNewPrivs:\t1" in Path("/proc/self/status").read_text(), "/proc does not show it")
    return "no_new_privs is set"


def _landlock() -> str:
    process.set_no_new_privileges()
    abi = landlock.refuse_everything()
    try:
        os.listdir("/")
    except PermissionError:
        return f"the root directory is refused (rights of ABI {abi})"
    raise RuntimeError("the root directory could be read")


def _not_dumpable() -> str:
    # Capabilities would forbid the reading too, or allow it in spite of everything.
    capabilities.drop_all()
    process.set_dumpable(False)
    mine = f"/proc/{os.getpid()}/environ"
    reader = os.fork()
    if reader == 0:
        try:
            os.close(os.open(mine, os.O_RDONLY))
        except PermissionError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(reader, 0)
    _expect(status == 0, "another process of the same user could read it")
    return "no process of the same user can read it"


def _rlimits() -> str:
    resource_limits.apply_limits(ResourceLimits())
    _expect(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), "core dumps could not be forbidden")
    try:
        opened = [os.dup(0) for _ in range(policy.OPEN_DESCRIPTORS)]
    except OSError:
        return f"no descriptor beyond {policy.OPEN_DESCRIPTORS - 1} can be opened"
    raise RuntimeError(f"{len(opened)} descriptors could be opened")


def _seccomp() -> str:
    program = seccomp.compile_filter(architecture=host_architecture(), pid=os.getpid())
    pid = os.fork()
    if pid == 0:
        process.set_dumpable(False)
        process.set_no_new_privileges()
        try:
            seccomp.load_filter(program)
        except OSError:
            os._exit(1)
        os.getppid()
        os._exit(2)
    _, status = os.waitpid(pid, 0)
    ending = os.waitstatus_to_exitcode(status)
    _expect(ending != 1, "the kernel does not take the filter")
    _expect(ending == -signal.SIGSYS, f"a forbidden call ended with status {ending}")
    return "a forbidden system call is the end of the process"


ATTEMPTS: Final[Mapping[Layer, Callable[[], str]]] = {
    Layer.UNPRIVILEGED_UID: _unprivileged_uid,
    Layer.USER_NAMESPACE: _user_namespace,
    Layer.MOUNT_NAMESPACE: _mount_namespace,
    Layer.EMPTY_ROOT: _empty_root,
    Layer.PID_NAMESPACE: _pid_namespace,
    Layer.NETWORK_NAMESPACE: _network_namespace,
    Layer.IPC_NAMESPACE: _ipc_namespace,
    Layer.UTS_NAMESPACE: _uts_namespace,
    Layer.CGROUP_NAMESPACE: _cgroup_namespace,
    Layer.CAPABILITIES: _capabilities,
    Layer.NO_NEW_PRIVILEGES: _no_new_privileges,
    Layer.LANDLOCK: _landlock,
    Layer.NOT_DUMPABLE: _not_dumpable,
    Layer.RLIMITS: _rlimits,
    Layer.SECCOMP: _seccomp,
}
