"""What a worker with one layer, and what that needs, is: asked from inside, beside one without any.

The layers that stop attempts are in ``test_escapes``; these change what a worker is and sees.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader_service.sandbox import policy
from loader_service.sandbox.layers import Layer
from tests.hostile.probes import Probe, ProbeService, only

pytestmark = pytest.mark.isolation


@pytest.fixture(scope="module")
def bare() -> Iterator[Probe]:
    """A worker without any layer."""
    with ProbeService(only()) as service, service.probe() as probe:
        yield probe


def alone(layer: Layer, *needed: Layer) -> tuple[ProbeService, Probe]:
    """Start a worker with one layer; skips where this host does not give it."""
    service = ProbeService(only(layer, *needed))
    probe = service.probe()
    if layer not in probe.model.isolation.layers:
        service.__exit__(None, None, None)
        pytest.skip(f"not claimed: this host gives no {layer}")
    return service, probe


def ask(question: str, layer: Layer, *needed: Layer) -> object:
    """Ask a worker that has one layer."""
    service, probe = alone(layer, *needed)
    with service, probe:
        return probe.ask(f"inside.{question}")


def test_the_user_namespace_hides_the_users_number(bare: Probe) -> None:
    found = ask("identity", Layer.USER_NAMESPACE)
    assert isinstance(found, dict)
    assert found["users"] == [policy.INSIDE_UID] * 3
    assert bare.ask("inside.identity")["users"] == [os.getuid()] * 3


def test_a_user_of_its_own_is_not_the_services(bare: Probe) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has a user for each worker")
    found = ask("identity", Layer.UNPRIVILEGED_UID)
    assert isinstance(found, dict)
    (user,) = set(found["users"])
    assert user in policy.UID_RANGE or user in policy.FALLBACK_UID_RANGE
    assert set(found["groups"]) == {user}
    assert found["supplementary"] == []
    assert bare.ask("inside.identity")["users"] == [0, 0, 0]


def test_the_pid_namespace_makes_it_process_1(bare: Probe) -> None:
    found = ask("identity", Layer.PID_NAMESPACE, Layer.USER_NAMESPACE)
    assert isinstance(found, dict)
    assert found["process"] == [1, 0]
    own, parent = bare.ask("inside.identity")["process"]
    assert own == bare.pid
    assert parent > 0


def test_the_network_namespace_leaves_a_loopback(bare: Probe) -> None:
    assert ask("interfaces", Layer.NETWORK_NAMESPACE, Layer.USER_NAMESPACE) == ["lo"]
    assert set(bare.ask("inside.interfaces")) == set(os.listdir("/sys/class/net"))


def test_the_uts_namespace_gives_a_neutral_name(bare: Probe) -> None:
    assert ask("host_name", Layer.UTS_NAMESPACE, Layer.USER_NAMESPACE) == policy.HOST_NAME
    assert bare.ask("inside.host_name") == os.uname().nodename


def test_the_cgroup_namespace_hides_where_the_service_is(bare: Probe) -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    prefixes = {line.split(":", 2)[2] for line in lines} - {"/"}
    if not prefixes:
        pytest.skip("these tests run in the root of every cgroup tree: there is nothing to hide")

    def shows(places: object) -> bool:
        assert isinstance(places, list)
        return any(place.startswith(tuple(prefixes)) for place in places)

    assert shows(bare.ask("inside.cgroups"))
    assert not shows(ask("cgroups", Layer.CGROUP_NAMESPACE, Layer.USER_NAMESPACE))


def test_capabilities_are_gone_from_every_set(bare: Probe) -> None:
    sets = ask("capabilities", Layer.CAPABILITIES)
    assert isinstance(sets, dict)
    held = ("effective", "permitted", "inheritable", "ambient")
    assert {sets[name] for name in held} == {0}
    if os.geteuid() == 0:
        assert sets["bounding"] == 0
        before = bare.ask("inside.capabilities")
        assert all(before[name] for name in ("effective", "permitted", "bounding"))


@pytest.mark.parametrize(
    ("layer", "attribute", "value"),
    [(Layer.NO_NEW_PRIVILEGES, "no new privileges", 1), (Layer.NOT_DUMPABLE, "dumpable", 0)],
)
def test_an_attribute(bare: Probe, layer: Layer, attribute: str, value: int) -> None:
    found = ask("attributes", layer)
    assert isinstance(found, dict)
    assert found[attribute] == value
    assert bare.ask("inside.attributes")[attribute] != value


def test_resource_limits_hold_descriptors_and_files(bare: Probe) -> None:
    service, probe = alone(Layer.RLIMITS)
    with service, probe:
        assert probe.ask("inside.most_descriptors") == policy.OPEN_DESCRIPTORS
        limits = probe.ask("inside.limits")
    assert limits["RLIMIT_FSIZE"] == limits["RLIMIT_CORE"] == [0, 0]
    ours = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert bare.ask("inside.limits")["RLIMIT_FSIZE"] == list(ours)
