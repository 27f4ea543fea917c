"""What a worker is, asserted from inside.

The policy forbids most questions; those are asked of a worker that has every layer but seccomp.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader_service.sandbox import policy
from loader_service.sandbox.layers import Layer
from tests.hostile.attacks import calls
from tests.hostile.probes import Probe, ProbeService, all_but

pytestmark = pytest.mark.isolation

OVERFLOW = 65534
"""The kernel's word for a user that has no number in this namespace."""
LOCKED_SECURE_BITS = 0b1110_1111


@pytest.fixture(scope="module")
def lone_service() -> Iterator[ProbeService]:
    """Workers that may ask."""
    with ProbeService(all_but(Layer.SECCOMP)) as service:
        yield service


@pytest.fixture(scope="module")
def bystander(lone_service: ProbeService) -> Iterator[Probe]:
    """The worker that is asked."""
    with lone_service.probe() as probe:
        yield probe


@pytest.fixture
def has(bystander: Probe) -> frozenset[str]:
    """The layers that the worker says it has."""
    return frozenset(bystander.model.isolation.layers)


def need(layers: frozenset[str], *wanted: Layer) -> None:
    """Skip where this host does not give a layer."""
    for layer in wanted:
        if layer not in layers:
            pytest.skip(f"this host gives no {layer}")


def test_a_worker_has_exactly_five_descriptors(bystander: Probe) -> None:
    assert bystander.ask("inside.descriptors") == [0, 1, 2, 3, 4]


def test_a_worker_holds_no_capability_and_can_gain_none(bystander: Probe) -> None:
    sets = bystander.ask("inside.capabilities")
    assert sets.pop("secure bits") == LOCKED_SECURE_BITS
    assert set(sets) == {"effective", "permitted", "inheritable", "bounding", "ambient"}
    assert set(sets.values()) == {0}


def test_a_worker_is_nobody_in_its_namespaces(bystander: Probe, has: frozenset[str]) -> None:
    need(has, Layer.USER_NAMESPACE, Layer.PID_NAMESPACE)
    found = bystander.ask("inside.identity")
    assert found["users"] == found["groups"] == [policy.INSIDE_UID] * 3
    assert found["process"] == [1, 0]
    if os.geteuid() == 0:
        assert found["supplementary"] == []
    else:
        assert set(found["supplementary"]) <= {OVERFLOW, policy.INSIDE_UID}


def test_outside_a_worker_is_neither_root_nor_another_worker(
    service: ProbeService, bystander: Probe
) -> None:
    def users(probe: Probe) -> set[str]:
        lines = Path(f"/proc/{probe.pid}/status").read_text().splitlines()
        return {
            number
            for line in lines
            if line.startswith(("Uid:", "Gid:"))
            for number in line.split()[1:]
        }

    if os.geteuid() != 0:
        assert users(bystander) == {str(os.getuid()), str(os.getgid())}
        return
    with service.probe() as other:
        assert len(users(bystander)) == len(users(other)) == 1
        assert users(bystander) != users(other)
        assert all(int(number) > 60_000 for number in users(bystander) | users(other))


def test_the_environment_is_four_constants(bystander: Probe) -> None:
    environment = bystander.ask("inside.environment")
    environment.pop("LD_LIBRARY_PATH", None)  # where the interpreter itself needs it
    assert environment == {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }


def test_attributes_of_the_process(bystander: Probe) -> None:
    assert bystander.ask("inside.attributes") == {
        "dumpable": 0,
        "no new privileges": 1,
        "seccomp": 0,
        "keep capabilities": 0,
        "subreaper": 0,
    }


def test_the_filter_is_on_in_a_worker_with_every_layer() -> None:
    with ProbeService() as service, service.probe() as probe:
        fields = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{probe.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert (fields["Seccomp"], fields["Seccomp_filters"]) == ("2", "1")
        assert fields["NoNewPrivs"] == "1"
        assert fields["Threads"] == "1"


def test_the_root_is_empty_and_stays_so(bystander: Probe, has: frozenset[str]) -> None:
    need(has, Layer.EMPTY_ROOT)
    root = bystander.ask("inside.root")
    assert root["entries"] == ([] if Layer.LANDLOCK not in has else errno.EACCES)
    assert root["create"] == -errno.EROFS
    assert root["proc"] == -errno.ENOENT
    assert root["here"] == len("/\0")
    assert set(root["parents"]) == {0}


def test_no_keyring_holds_a_key(bystander: Probe) -> None:
    read = 11  # KEYCTL_READ
    sizes = [bystander.call("keyctl", read, -number, 0, 0) for number in range(1, 6)]
    # The user-session keyring holds a link to the user's, where there is one.
    assert all(size <= 0 for size in sizes[:4]), sizes
    assert sizes[4] <= 4, sizes


def test_the_only_interface_is_a_loopback_that_is_off(
    bystander: Probe, has: frozenset[str]
) -> None:
    need(has, Layer.NETWORK_NAMESPACE)
    assert bystander.ask("inside.interfaces") == ["lo"]


def test_the_host_name_is_neutral(bystander: Probe, has: frozenset[str]) -> None:
    need(has, Layer.UTS_NAMESPACE)
    assert bystander.ask("inside.host_name") == policy.HOST_NAME


def test_resource_limits_are_tight_for_good(bystander: Probe, has: frozenset[str]) -> None:
    limits = bystander.ask("inside.limits")
    for name in ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE"):
        assert limits[f"RLIMIT_{name}"] == [0, 0], name
    assert limits["RLIMIT_NOFILE"] == [policy.OPEN_DESCRIPTORS] * 2
    if {Layer.USER_NAMESPACE, Layer.UNPRIVILEGED_UID} & has:
        assert limits["RLIMIT_NPROC"] == [policy.tasks_for(1)] * 2
    if Layer.CGROUP_MEMORY not in has:
        soft, hard = limits["RLIMIT_DATA"]
        assert 0 < soft == hard < 2 << 30
    raised = (1 << 20).to_bytes(8, "little").hex() * 2
    for number in (4, 7):  # RLIMIT_CORE, RLIMIT_NOFILE
        assert bystander.ask("calls.set_limit", number=number, values=raised) == -errno.EPERM


def test_its_own_user_cannot_read_a_workers_memory(bystander: Probe) -> None:
    """Nor another worker's code, were it out of its namespaces: without root they share a user."""
    if os.geteuid() == 0:
        pytest.skip("root may read any process")
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            os.close(os.open(f"/proc/{other.pid}/mem", os.O_RDONLY))
            for name in ("mem", "environ", "maps", "fd"):
                with pytest.raises(PermissionError):
                    os.close(os.open(f"/proc/{bystander.pid}/{name}", os.O_RDONLY))
            assert calls.read_process(bystander.pid, 4096) == -errno.EPERM
            assert calls.call("ptrace", 0x4206, bystander.pid, 0, 0) == -errno.EPERM  # PTRACE_SEIZE
        finally:
            other.kill()


def test_one_thread_is_all_there_is(bystander: Probe) -> None:
    assert bystander.ask("inside.threads") == 1
    tasks = Path(f"/proc/{bystander.pid}/task")
    assert len(list(tasks.iterdir())) == 1
