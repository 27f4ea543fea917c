"""Linux namespaces: leaving the ones of the host for new ones, each on its own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

from loader_service.sandbox import libc, policy
from loader_service.sandbox.layers import Layer

NAMESPACE_FLAGS: Final[Mapping[Layer, int]] = {
    Layer.MOUNT_NAMESPACE: 0x0002_0000,  # CLONE_NEWNS
    Layer.PID_NAMESPACE: 0x2000_0000,  # CLONE_NEWPID: holds from the next fork
    Layer.NETWORK_NAMESPACE: 0x4000_0000,  # CLONE_NEWNET
    Layer.IPC_NAMESPACE: 0x0800_0000,  # CLONE_NEWIPC
    Layer.UTS_NAMESPACE: 0x0400_0000,  # CLONE_NEWUTS
    Layer.CGROUP_NAMESPACE: 0x0200_0000,  # CLONE_NEWCGROUP
}
"""All but the user namespace, which has to come first and needs its id maps."""

_CLONE_NEWUSER: Final = 0x1000_0000


def enter_user_namespace() -> None:
    """Enter a new user namespace in which the present user is `policy.INSIDE_UID`.

    The process must have one thread and be dumpable (else its maps belong to root). It then holds
    every capability inside, and none outside. Raises `OSError`; some hosts let the namespace be
    made and refuse the maps, and then the process is in it without rights.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc.syscall("unshare", _CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{policy.INSIDE_UID} {uid} 1")
    _write("/proc/self/gid_map", f"{policy.INSIDE_UID} {gid} 1")


def enter_user_namespace_as_root(uid: int) -> None:
    """Enter a new user namespace that knows root, and user and group `uid` as `policy.INSIDE_UID`.

    For a process of one thread that is root, and becomes that user later. Raises `OSError`.
    """
    parent = os.getpid()
    entered_reading, entered_writing = os.pipe()
    # Two users are mapped by a process that has its rights outside.
    mapper = os.fork()
    if mapper == 0:
        _map_users(parent, uid, entered_reading, entered_writing)
    os.close(entered_reading)
    try:
        libc.syscall("unshare", _CLONE_NEWUSER)
        os.write(entered_writing, b"!")
    finally:
        os.close(entered_writing)
        _, status = os.waitpid(mapper, 0)
    if status:
        raise OSError(os.waitstatus_to_exitcode(status), "the users could not be mapped")


def _map_users(pid: int, uid: int, entered_reading: int, entered_writing: int) -> None:
    """Map root and another user for a process that has entered its namespace; never returns."""
    status = 1
    try:
        os.close(entered_writing)
        if os.read(entered_reading, 1):
            for kind in ("gid_map", "uid_map"):
                _write(f"/proc/{pid}/{kind}", f"0 0 1\n{policy.INSIDE_UID} {uid} 1")
            status = 0
    except OSError as error:
        status = error.errno or 1
    finally:
        os._exit(status)


def enter_namespace(layer: Layer) -> None:
    """Enter a new namespace of one kind of `NAMESPACE_FLAGS`. Raises `OSError`."""
    libc.syscall("unshare", NAMESPACE_FLAGS[layer])
    if layer is Layer.UTS_NAMESPACE:
        _set_host_name(policy.HOST_NAME)


def _set_host_name(name: str) -> None:
    buffer = libc.c_string(name)
    for call in ("sethostname", "setdomainname"):
        libc.syscall(call, ctypes.addressof(buffer), len(name))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
