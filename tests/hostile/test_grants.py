"""What a device's grants open in its worker, and what they leave closed: asked from inside.

The worker is a real one with the device ``openvino``: born, granted and locked down as always; only
its model is a probe. What holds for all workers is in the other files of this room.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_loader as ml
from loader_service.broker.births import DEVICE_FILE_BYTES
from loader_service.devices.catalogue import OPENVINO, Enabled, grants_of
from loader_service.sandbox.granted_calls import (
    DEVICE_NODES,
    EXECUTABLE_MEMORY,
    GRANTED_SYSTEM_CALLS,
    NUMA_IS_REFUSED,
    OWN_FILE,
)
from loader_service.sandbox.layers import Layer
from model_loader_wire.limits import DEFAULT_LIMITS
from tests.devices.openvino_worker import need_openvino
from tests.hostile.probes import Probe, ProbeService

pytestmark = pytest.mark.isolation

DEVICE = OPENVINO
HERE = -100
"""AT_FDCWD."""
FILE = "/partition.tflite"
FILE_DESCRIPTOR = 5
"""Behind the four of every worker and its channel."""
FORBIDDEN = (
    ("open a socket", ("socket", 2, 1, 0)),
    ("execute a program", ("execve", "/bin/true", 0, 0)),
    ("fork", ("fork",)),
    ("trace", ("ptrace", 16, 1)),
    ("signal", ("kill", 1, 15)),
    ("remove a file", ("unlinkat", HERE, FILE, 0)),
    ("rename a file", ("renameat", HERE, FILE, HERE, "/other")),
    ("link a file", ("linkat", HERE, FILE, HERE, "/other", 0)),
    ("change a file's mode", ("fchmod", FILE_DESCRIPTOR, 0o777)),
    ("make a directory", ("mkdirat", HERE, "/directory", 0o700)),
    ("mount", ("mount", 0, "/", 0, 4096, 0)),
    ("lock a file", ("flock", FILE_DESCRIPTOR, 2)),
    ("copy a descriptor", ("dup", FILE_DESCRIPTOR)),
    ("copy a descriptor otherwise", ("fcntl", FILE_DESCRIPTOR, fcntl.F_DUPFD, 0)),
    ("seal or lease a file", ("fcntl", FILE_DESCRIPTOR, fcntl.F_SETLEASE, fcntl.F_WRLCK)),
    ("open by the new call", ("openat2", HERE, FILE, {"zeros": 24}, 24)),
)


@pytest.fixture(scope="module")
def lone_service() -> Iterator[ProbeService]:
    need_openvino()
    with ProbeService(devices=[DEVICE]) as service:
        yield service


def the_end(service: ProbeService, *call: object, device: str | None = DEVICE) -> bool:
    """Whether a worker of its own is ended for this call."""
    with service.probe(device=device) as probe:
        return probe.is_killed_for(*call)


def test_it_has_every_layer_that_a_plain_worker_has(granted: Probe, plain: Probe) -> None:
    assert granted.model.isolation.layers == plain.model.isolation.layers
    assert granted.model.isolation.missing == plain.model.isolation.missing


def test_a_grant_is_for_its_own_workers_only(lone_service: ProbeService) -> None:
    assert the_end(lone_service, "pwrite64", 3, "x", 1, 0, device=None)
    with lone_service.probe() as probe:
        lost = probe.loss("machine_code.write_and_run")
    assert lost == (ml.SecurityError, "policy-violation")


def test_every_grant_of_the_device_is_looked_at_here(granted: Probe) -> None:
    del granted
    assert set(grants_of(Enabled(DEVICE)).system_calls) == {
        EXECUTABLE_MEMORY,
        OWN_FILE,
        NUMA_IS_REFUSED,
    }
    # That of device nodes has a file of its own.
    assert set(GRANTED_SYSTEM_CALLS) == {
        EXECUTABLE_MEMORY,
        OWN_FILE,
        NUMA_IS_REFUSED,
        DEVICE_NODES,
    }


def test_executable_memory_new_code_runs(granted: Probe) -> None:
    assert granted.ask("machine_code.write_and_run") == 42


@pytest.mark.parametrize("attack", ["protect_oddly", "map_executable"])
def test_executable_memory_in_no_other_way(lone_service: ProbeService, attack: str) -> None:
    with lone_service.probe(device=DEVICE) as probe:
        lost = probe.loss(f"machine_code.{attack}")
    assert lost == (ml.SecurityError, "policy-violation")


def test_own_file_is_read_by_name_and_written_by_its_descriptor(granted: Probe) -> None:
    written, read, emptied = granted.ask(
        "calls.make",
        calls=[
            ["pwrite64", FILE_DESCRIPTOR, "ab", 2, 0],
            ["pwrite64", FILE_DESCRIPTOR, "cd", 2, 2],
            ["ftruncate", FILE_DESCRIPTOR, 0],
        ],
    )
    assert (written, read, emptied) == (2, 2, 0)
    descriptor = granted.call("openat", HERE, FILE, os.O_RDONLY)
    assert descriptor > FILE_DESCRIPTOR
    assert granted.call("close", descriptor) == 0


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_PATH, os.O_TMPFILE, 3]
)
def test_own_file_is_never_opened_otherwise(granted: Probe, flags: int) -> None:
    assert granted.call("openat", HERE, FILE, flags) == -errno.EACCES


# Its root also has the folders above the files with nothing in them, wherever those are installed.
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/mem", "/dev/null", "/sys", "/boot"])
def test_own_file_is_the_only_one(granted: Probe, path: str) -> None:
    if Layer.EMPTY_ROOT in granted.model.isolation.layers:
        assert granted.call("openat", HERE, path, os.O_RDONLY) in (-errno.ENOENT, -errno.EACCES)
        assert granted.call("newfstatat", HERE, path, {"zeros": 512}, 0) == -errno.ENOENT


def test_own_file_has_its_root_listed_and_nothing_else(granted: Probe) -> None:
    root = granted.call("openat", HERE, "/", os.O_RDONLY | os.O_DIRECTORY)
    assert root > FILE_DESCRIPTOR
    assert granted.call("fcntl", root, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert granted.call("getdents64", root, {"zeros": 4096}, 4096) > 0
    assert granted.call("close", root) == 0


def test_own_file_stands_in_a_root_with_nothing_else(granted: Probe) -> None:
    root = Path(f"/proc/{granted.pid}/root")
    if os.geteuid() != 0:
        pytest.skip("only root sees the root of another user's process")
    found = [f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir()]
    assert sorted(found) == sorted([FILE, *grants_of(Enabled(DEVICE)).empty_files])
    assert [(root / name.strip("/")).stat().st_size for name in found] == [0] * len(found)
    assert os.statvfs(root).f_flag & os.ST_RDONLY
    assert os.statvfs(root).f_ffree == 0


def test_own_file_holds_no_more_than_a_model(granted: Probe) -> None:
    most = DEFAULT_LIMITS.model_bytes
    assert most is not None
    beyond = most + DEVICE_FILE_BYTES
    assert granted.call("pwrite64", FILE_DESCRIPTOR, "x", 1, beyond) == -errno.EFBIG
    assert granted.call("ftruncate", FILE_DESCRIPTOR, beyond + 1) == -errno.EFBIG


def test_own_files_calls_do_nothing_to_other_descriptors(granted: Probe) -> None:
    for descriptor in (3, 4):
        assert granted.call("pwrite64", descriptor, "x", 1, 0) == -errno.ESPIPE
        assert granted.call("ftruncate", descriptor, 0) == -errno.EINVAL


def test_numa_is_refused_and_does_not_kill(lone_service: ProbeService, granted: Probe) -> None:
    assert granted.call("mbind", 0, 4096, 0, 0, 0, 0) == -errno.EPERM
    assert the_end(lone_service, "mbind", 0, 4096, 0, 0, 0, 0, device=None)


@pytest.mark.parametrize(("what", "call"), FORBIDDEN)
def test_what_is_not_granted_ends_it(
    lone_service: ProbeService, what: str, call: tuple[object, ...]
) -> None:
    del what
    assert the_end(lone_service, *call)


def test_it_has_the_file_and_no_other_descriptor_more(granted: Probe) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sees the descriptors of another user's process")
    assert sorted(os.listdir(f"/proc/{granted.pid}/fd")) == list("012345")
