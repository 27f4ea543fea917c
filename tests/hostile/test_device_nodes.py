"""What the grant of a device node opens in its worker, and what it leaves closed.

The node is /dev/zero, which every host has; the device is the tests' own library.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_loader as ml
from loader_service.writer import small
from tests.devices.little_delegate import compile_delegate
from tests.hostile.probes import Probe, ProbeService
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(
        not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
    ),
]

DEVICE = "external:little"
NODE = "/dev/zero"
HERE = -100
"""AT_FDCWD."""
CHANNEL = 4
BYTES_WAITING = 0x541B
"""FIONREAD."""
FORBIDDEN = (
    ("socket", 2, 1, 0),
    ("execve", "/bin/true", 0, 0),
    ("fork",),
    ("ptrace", 16, 1),
    ("pwrite64", 3, "x", 1, 0),
    ("mknodat", HERE, "/dev/mem", 0o20666, 0x101),
    ("unlinkat", HERE, NODE, 0),
    ("mprotect", 0x1000, 4096, mmap.PROT_READ | mmap.PROT_EXEC),
    ("openat2", HERE, NODE, {"zeros": 24}, 24),
)


@pytest.fixture(scope="module")
def lone_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProbeService]:
    library = compile_delegate(tmp_path_factory.mktemp("delegate"))
    with ProbeService(devices=[f"{DEVICE}={library},{NODE}"]) as service:
        yield service


@pytest.fixture
def node(granted: Probe) -> Iterator[int]:
    """The node, open for reading and writing."""
    descriptor = granted.call("openat", HERE, NODE, os.O_RDWR | os.O_CLOEXEC)
    assert descriptor > CHANNEL
    yield descriptor
    assert granted.call("close", descriptor) == 0


def test_it_has_every_layer_that_a_plain_worker_has(granted: Probe, plain: Probe) -> None:
    assert granted.model.isolation.layers == plain.model.isolation.layers
    assert granted.model.isolation.missing == plain.model.isolation.missing


def test_the_node_is_read_and_shares_memory(granted: Probe, node: int) -> None:
    assert granted.call("read", node, {"zeros": 16}, 16) == 16
    shared = (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, node, 0)
    assert granted.call("mmap", *shared) > 0


def test_drivers_are_asked_and_plain_workers_ask_nobody(granted: Probe, plain: Probe) -> None:
    assert granted.call("ioctl", CHANNEL, BYTES_WAITING, {"zeros": 4}) == 0
    assert plain.call("ioctl", CHANNEL, BYTES_WAITING, {"zeros": 4}) == -errno.ENOTTY


@pytest.mark.parametrize("path", ["/dev/null", "/dev/tty", "/etc/passwd", "/proc/self/mem", "/sys"])
def test_nothing_else_is_there(granted: Probe, path: str) -> None:
    assert granted.call("openat", HERE, path, os.O_RDONLY) in (-errno.ENOENT, -errno.EACCES)


@pytest.mark.parametrize("flags", [os.O_CREAT, os.O_TRUNC, os.O_PATH, os.O_TMPFILE, os.O_APPEND])
def test_it_is_opened_in_no_other_way(granted: Probe, flags: int) -> None:
    assert granted.call("openat", HERE, NODE, os.O_RDWR | flags) == -errno.EACCES


def test_nothing_is_made_beside_it(granted: Probe) -> None:
    assert granted.call("openat", HERE, "/dev/mine", os.O_RDWR | os.O_CREAT) == -errno.EACCES
    assert granted.call("openat", HERE, "/dev", os.O_RDWR) in (-errno.EISDIR, -errno.EACCES)


def test_a_plain_worker_has_no_node(plain: Probe) -> None:
    assert plain.call("openat", HERE, NODE, os.O_RDWR) == -errno.EACCES


def test_its_memory_is_never_executable(lone_service: ProbeService) -> None:
    with lone_service.probe(device=DEVICE) as probe:
        descriptor = probe.call("openat", HERE, NODE, os.O_RDWR)
        executable = (0, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0)
        assert probe.is_killed_for("mmap", *executable)


@pytest.mark.parametrize("call", FORBIDDEN, ids=lambda call: call[0])
def test_what_is_not_granted_ends_it(lone_service: ProbeService, call: tuple[object, ...]) -> None:
    with lone_service.probe(device=DEVICE) as probe:
        assert probe.is_killed_for(*call)


def test_descriptors_do_not_heap_up(granted: Probe) -> None:
    opened = []
    while (descriptor := granted.call("openat", HERE, NODE, os.O_RDONLY)) > 0:
        opened.append(descriptor)
        assert len(opened) < 100
    assert descriptor == -errno.EMFILE
    for number in opened:
        assert granted.call("close", number) == 0


def test_the_root_holds_the_node_alone(granted: Probe) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sees the root of another user's process")
    root = Path(f"/proc/{granted.pid}/root")
    assert [str(path.relative_to(root)) for path in sorted(root.rglob("*"))] == ["dev", "dev/zero"]
    assert os.statvfs(root).f_flag & os.ST_RDONLY
    assert os.statvfs(root).f_ffree == 0


@pytest.mark.slow
def test_a_node_that_is_not_there_is_said() -> None:
    library = "/proc/self/exe"
    with ml.embed(devices=[f"external:none={library},/dev/no-such-node"]) as connection:
        context = ml.create_context(connection=connection, accelerator_name="external:none")
        with pytest.raises(ml.NotSupportedError, match="needs /dev/no-such-node, which is no"):
            ml.MLModelLoader(context).load(small.add())
