"""The one file that a device may be granted: what can be done with it, and what cannot."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

import pytest

from loader_service.sandbox import (
    empty_root,
    granted_calls,
    landlock,
    lockdown,
    namespaces,
    own_file,
    process,
)
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.granted_calls import OWN_FILE
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.own_file import OwnFile
from loader_service.sandbox.policy import WORKER_SYSTEM_CALLS
from loader_service.sandbox.resource_limits import ResourceLimits
from tests.sandbox.sandboxed import become_ordinary, in_child
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(
        not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
    ),
]

FILE = RootFile("partition.tflite", 64 << 10)


def outcome_of(act: Callable[[], object]) -> object:
    """What a call returns, or the name of its error."""
    try:
        return act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def inside(work: Callable[[OwnFile], object]) -> object:
    """Run `work` in a child whose root holds the file."""

    def child() -> object:
        become_ordinary()
        namespaces.enter_user_namespace()
        namespaces.enter_namespace(Layer.MOUNT_NAMESPACE)
        descriptor = empty_root.enter_empty_root(FILE)
        assert descriptor is not None
        return work(OwnFile(FILE, descriptor))

    return in_child(child).result()


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_it_holds_what_is_written_and_nothing_afterwards() -> None:
    def work(file: OwnFile) -> object:
        found = []
        for data in (b"long" * 9000, b"short"):
            with file.holding(data[:2], b"", data[2:]) as path:
                found.append([path, read(path) == data])
        return [found, os.stat("/partition.tflite").st_size, os.statvfs("/").f_bfree]

    path = "/partition.tflite"
    assert inside(work) == [[[path, True], [path, True]], 0, FILE.bytes // 4096]


def test_by_name_it_can_only_be_read_and_nothing_can_be_beside_it() -> None:
    acts: dict[str, Callable[[], object]] = {
        "read": lambda: len(read("/partition.tflite")),
        "write": lambda: os.open("/partition.tflite", os.O_WRONLY),
        "truncate": lambda: os.truncate("/partition.tflite", 0),
        "remove": lambda: os.remove("/partition.tflite"),
        "rename": lambda: os.rename("/partition.tflite", "/other"),
        "another": lambda: os.open("/another", os.O_CREAT | os.O_WRONLY),
        "directory": lambda: os.mkdir("/directory"),
        "execute": lambda: os.execv("/partition.tflite", ["x"]),
        "the host's": lambda: os.open("/etc/passwd", os.O_RDONLY),
    }

    def work(file: OwnFile) -> object:
        with file.holding(b"#!/bin/sh\n"):
            return {name: outcome_of(act) for name, act in acts.items()}

    assert inside(work) == {
        "read": 10,
        "write": "EROFS",
        "truncate": "EROFS",
        "remove": "EROFS",
        "rename": "EROFS",
        "another": "EROFS",
        "directory": "EROFS",
        "execute": "EACCES",
        "the host's": "ENOENT",
    }


def test_it_becomes_no_longer_than_was_said() -> None:
    def work(file: OwnFile) -> object:
        def fill() -> None:
            with file.holding(bytes(FILE.bytes + 1)):
                raise AssertionError("it took more than it may hold")

        return [outcome_of(fill), os.stat("/partition.tflite").st_size]

    assert inside(work) == ["ENOSPC", 0]


def test_landlock_lets_it_be_read_and_nothing_else() -> None:
    try:
        landlock.abi_version()
    except OSError as error:
        pytest.skip(f"this kernel has no Landlock: {error}")

    def work(file: OwnFile) -> object:
        process.set_no_new_privileges()
        landlock.refuse_everything(readable=file.descriptor)
        with file.holding(b"there") as path:
            return [len(read(path)), outcome_of(lambda: os.listdir("/"))]

    assert inside(work) == [5, "EACCES"]


def test_a_process_that_is_locked_down_with_it_reads_and_writes_it() -> None:
    def work(file: OwnFile) -> object:
        lockdown.lock_down(
            PROCESS_LAYERS,
            ResourceLimits(file_bytes=FILE.bytes, descriptors=512),
            granted=[OWN_FILE],
            file=file.descriptor,
        )
        with file.holding(b"there") as path:
            descriptor = os.open(path, os.O_RDONLY)
            found = os.read(descriptor, 100).decode()
        os.close(descriptor)
        writing = outcome_of(lambda: os.open(path, os.O_RDWR))
        other = outcome_of(lambda: os.open("/", os.O_RDONLY))
        return [found, writing, other]

    found = inside(work)
    assert isinstance(found, list)
    assert found[:2] == ["there", "EACCES"]
    assert found[2] == "EACCES" or isinstance(found[2], int)


def test_where_no_root_could_be_given_the_hosts_files_stay_closed() -> None:
    def work() -> object:
        # A host that refuses ordinary users their namespaces, and has no Landlock.
        layers = PROCESS_LAYERS - {Layer.LANDLOCK}
        lockdown.lock_down(layers, ResourceLimits(descriptors=512), granted=[OWN_FILE])
        return [
            outcome_of(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            outcome_of(lambda: os.stat("/etc/passwd").st_size),
        ]

    assert in_child(work).result() == ["EACCES", "EACCES"]


def test_a_process_without_it_writes_no_file() -> None:
    def work() -> object:
        lockdown.lock_down(PROCESS_LAYERS, ResourceLimits())
        return resource.getrlimit(resource.RLIMIT_FSIZE)

    assert in_child(work).result() == [0, 0]


def test_the_device_finds_it_where_the_worker_put_it() -> None:
    assert own_file.given() is None
    file = OwnFile(FILE, 99)
    own_file.give(file)
    try:
        assert own_file.given() is file
    finally:
        own_file._given.clear()


def test_without_a_grant_the_table_is_the_plain_one() -> None:
    assert granted_calls.rules_for(()) == WORKER_SYSTEM_CALLS


@pytest.mark.parametrize("name", granted_calls.GRANTED_SYSTEM_CALLS)
def test_each_grant_changes_its_own_calls_only(name: str) -> None:
    granted = {rule.name: rule for rule in granted_calls.GRANTED_SYSTEM_CALLS[name]}
    rules = {rule.name: rule for rule in granted_calls.rules_for([name])}
    plain = {rule.name: rule for rule in WORKER_SYSTEM_CALLS}
    assert {call for call in rules if rules[call] != plain.get(call)} == set(granted)
    assert plain.keys() <= rules.keys()
    assert all(rule.reason for rule in granted.values())


def test_what_is_no_grant_is_an_error() -> None:
    with pytest.raises(KeyError):
        granted_calls.rules_for(["everything"])
