"""Landlock refuses everything it can, by the ABI at hand and by every older one."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from loader_service.sandbox import landlock, libc, policy, process
from tests.sandbox.sandboxed import become_ordinary, in_child


def abi() -> int:
    try:
        return landlock.abi_version()
    except OSError:
        return 0


ABI = abi()
pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(ABI == 0, reason="this kernel has no Landlock"),
]


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except PermissionError:
        return True
    return False


@pytest.mark.parametrize("version", range(1, min(ABI, max(policy.LANDLOCK_RIGHTS)) + 1))
def test_every_abi_up_to_this_kernels_refuses_files(version: int, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("text")

    def work() -> list[object]:
        process.set_no_new_privileges()
        return [
            landlock.refuse_everything(version),
            refused(lambda: os.open(tmp_path / "there", os.O_RDONLY)),
            refused(lambda: os.listdir(tmp_path)),
            refused(lambda: os.mkdir(tmp_path / "made")),
            refused(lambda: os.remove(tmp_path / "there")),
            refused(lambda: os.execv("/bin/true", ["true"])),
        ]

    assert in_child(work).result() == [version, True, True, True, True, True]


@pytest.mark.skipif(ABI < 3, reason="truncation needs Landlock ABI 3")
def test_truncation_is_refused_from_abi_3(tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("text")

    def work() -> bool:
        process.set_no_new_privileges()
        landlock.refuse_everything()
        return refused(lambda: os.truncate(file, 0))

    assert in_child(work).result() is True
    assert file.read_text() == "text"


@pytest.mark.skipif(ABI < 4, reason="TCP ports need Landlock ABI 4")
def test_tcp_is_refused_from_abi_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def work() -> list[bool]:
            process.set_no_new_privileges()
            landlock.refuse_everything()
            with socket.socket() as client, socket.socket() as server:
                return [
                    refused(lambda: client.connect(address)),
                    refused(lambda: server.bind(("127.0.0.1", 0))),
                ]

        assert in_child(work).result() == [True, True]


@pytest.mark.skipif(ABI < 6, reason="scopes need Landlock ABI 6")
def test_abstract_sockets_and_signals_to_outside_are_refused_from_abi_6() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"\0landlock-test-{os.getpid()}"
        listener.bind(name)
        listener.listen()

        def work() -> list[bool]:
            become_ordinary()
            # The parent death signal would be refused as well: the other one waits for its end.
            ended, lifeline = os.pipe()
            outside = os.fork()
            if outside == 0:
                os.close(lifeline)
                os.read(ended, 1)
                os._exit(0)
            process.set_no_new_privileges()
            landlock.refuse_everything()
            with socket.socket(socket.AF_UNIX) as client:
                return [
                    refused(lambda: client.connect(name)),
                    refused(lambda: os.kill(outside, 0)),
                    refused(lambda: os.kill(os.getpid(), 0)),
                ]

        assert in_child(work).result() == [True, True, False]


def test_the_rule_set_grows_with_the_abi_and_never_loses_a_right() -> None:
    versions = sorted(policy.LANDLOCK_RIGHTS)
    assert versions == list(range(1, len(versions) + 1))
    for older, newer in pairwise(versions):
        one, two = policy.LANDLOCK_RIGHTS[older], policy.LANDLOCK_RIGHTS[newer]
        for field in ("file_system", "network", "scopes"):
            bits = getattr(one, field), getattr(two, field)
            assert bits[0] & ~bits[1] == 0
        assert one != two


def test_the_kernel_knows_no_right_that_is_not_refused() -> None:
    """For the file system: the next bit is one this kernel does not know, or a newer ABI has it."""
    if max(policy.LANDLOCK_RIGHTS) < ABI - 1:
        pytest.skip("the kernel is newer than the table")
    rights = policy.LANDLOCK_RIGHTS[min(ABI, max(policy.LANDLOCK_RIGHTS))]
    beyond = (rights.file_system + 1).to_bytes(8, "little")
    attributes = ctypes.create_string_buffer(beyond, 8)
    with pytest.raises(OSError, match="Invalid argument"):
        libc.syscall("landlock_create_ruleset", ctypes.addressof(attributes), 8, 0)
