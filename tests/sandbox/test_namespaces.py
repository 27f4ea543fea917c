"""Each namespace alone, and the empty root, by what can no longer be seen or reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.sandbox import capabilities, empty_root, libc, namespaces, policy
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.namespaces import NAMESPACE_FLAGS
from tests.sandbox.sandboxed import become_ordinary, in_child
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(
        not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
    ),
]

LINKS = {
    Layer.MOUNT_NAMESPACE: "mnt",
    Layer.NETWORK_NAMESPACE: "net",
    Layer.IPC_NAMESPACE: "ipc",
    Layer.UTS_NAMESPACE: "uts",
    Layer.CGROUP_NAMESPACE: "cgroup",
}


def inside(work: Callable[[], object]) -> object:
    """Run `work` in a child in a user namespace of its own, as an ordinary user outside."""

    def child() -> object:
        become_ordinary()
        namespaces.enter_user_namespace()
        return work()

    return in_child(child).result()


def link(name: str) -> str:
    return os.readlink(f"/proc/self/ns/{name}")


def test_the_user_inside_is_neutral_with_rights_only_inside() -> None:
    def work() -> object:
        rights = capabilities.held()[0]
        refused = []
        acts: dict[str, Callable[[], object]] = {
            "groups": lambda: os.setgroups([]),
            "a user of the host": lambda: os.setuid(0),
            "the host's name": lambda: socket.sethostname("taken"),
        }
        for name, act in acts.items():
            try:
                act()
            except OSError:
                refused.append(name)
        maps = Path("/proc/self/uid_map").read_text().split()
        return [os.getuid(), os.getgid(), maps[0], maps[2], rights != 0, refused]

    user = policy.INSIDE_UID
    refused = ["groups", "a user of the host", "the host's name"]
    assert inside(work) == [user, user, str(user), "1", True, refused]


@pytest.mark.parametrize("layer", LINKS, ids=lambda layer: str(layer))
def test_one_namespace_is_new_and_the_others_stay(layer: Layer) -> None:
    def work() -> object:
        before = {name: link(name) for name in LINKS.values()}
        namespaces.enter_namespace(layer)
        return [name for name in LINKS.values() if link(name) != before[name]]

    assert inside(work) == [LINKS[layer]]


def test_the_next_child_is_process_1_and_sees_no_other() -> None:
    def work() -> object:
        namespaces.enter_namespace(Layer.PID_NAMESPACE)
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                os.kill(2, 0)
            except ProcessLookupError:
                os.write(writing, f"{os.getpid()} {os.getppid()} alone".encode())
            os._exit(0)
        os.wait()
        return os.read(reading, 99).decode().split()

    assert inside(work) == ["1", "0", "alone"]


def test_no_network_is_left() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    abstract.bind(f"\0sandbox-test-{os.getpid()}")
    abstract.listen()

    def reachable() -> list[bool]:
        found = []
        for family, address in (
            (socket.AF_INET, listener.getsockname()),
            (socket.AF_UNIX, abstract.getsockname()),
        ):
            with socket.socket(family, socket.SOCK_STREAM) as client:
                found.append(client.connect_ex(address) == 0)
        return found

    def work() -> object:
        before = reachable()
        namespaces.enter_namespace(Layer.NETWORK_NAMESPACE)
        return [before, reachable()]

    with listener, abstract:
        assert inside(work) == [[True, True], [False, False]]


def test_the_host_name_is_neutral() -> None:
    def work() -> list[str]:
        namespaces.enter_namespace(Layer.UTS_NAMESPACE)
        return [os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text().strip()]

    assert inside(work) == [policy.HOST_NAME, policy.HOST_NAME]


def test_the_place_in_the_cgroup_tree_is_hidden() -> None:
    def work() -> list[str]:
        namespaces.enter_namespace(Layer.CGROUP_NAMESPACE)
        lines = Path("/proc/self/cgroup").read_text().split()
        return [line for line in lines if not line.endswith(":/")]

    assert inside(work) == []


def test_shared_memory_segments_of_the_host_are_out_of_reach() -> None:
    def work() -> list[bool]:
        key, size, create_exclusive = 0x5A4D_0000 + os.getpid() % 65536, 4096, 0o3600
        identifier = libc.syscall("shmget", key, size, create_exclusive)

        def found() -> bool:
            try:
                libc.syscall("shmget", key, 0, 0)
            except OSError:
                return False
            return True

        before = found()
        remove = 0
        try:
            pid = os.fork()
            if pid == 0:
                namespaces.enter_namespace(Layer.IPC_NAMESPACE)
                os._exit(int(found()))
            return [before, bool(os.waitpid(pid, 0)[1])]
        finally:
            libc.syscall("shmctl", identifier, remove, 0)

    assert inside(work) == [True, False]


def test_the_empty_root_has_nothing_and_takes_nothing() -> None:
    def work() -> dict[str, object]:
        os.stat("/etc/passwd")
        namespaces.enter_namespace(Layer.MOUNT_NAMESPACE)
        empty_root.enter_empty_root()
        acts: dict[str, Callable[[], object]] = {
            "passwd": lambda: os.stat("/etc/passwd"),
            "proc": lambda: os.stat("/proc"),
            "directory": lambda: os.mkdir("/x"),
            "file": lambda: os.open("/x", os.O_CREAT | os.O_WRONLY),
            "above": lambda: os.stat("/../etc"),
        }
        refused = []
        for name, act in acts.items():
            try:
                act()
            except OSError:
                refused.append(name)
        information = os.statvfs("/")
        return {
            "listing": os.listdir("/"),
            "cwd": os.getcwd(),
            "refused": sorted(refused),
            "free inodes": information.f_ffree,
            "read-only": bool(information.f_flag & os.ST_RDONLY),
        }

    assert inside(work) == {
        "listing": [],
        "cwd": "/",
        "refused": ["above", "directory", "file", "passwd", "proc"],
        "free inodes": 0,
        "read-only": True,
    }


def test_the_hosts_mounts_stay_as_they_were() -> None:
    def mounts() -> str:
        return Path("/proc/self/mountinfo").read_text()

    before = mounts()

    def work() -> bool:
        namespaces.enter_namespace(Layer.MOUNT_NAMESPACE)
        empty_root.enter_empty_root()
        return True

    assert inside(work) is True
    assert mounts() == before


def test_every_flag_is_its_own() -> None:
    flags = list(NAMESPACE_FLAGS.values())
    assert all(flag.bit_count() == 1 for flag in flags)
    assert len(set(flags)) == len(flags)
