"""Limits of an origin, of a principal and of all: each acts, is named, and stops nobody else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from loader_service.broker.settings import Settings
from loader_service.sandbox import cgroup
from loader_service.sandbox.cgroup import Controller, start_time
from loader_service.sandbox.cgroup_mounts import own_cgroups
from loader_service.writer import costly, small
from model_loader_wire.shared_limits import SHARED_LIMITS
from tests.broker.conftest import ONE
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of
from tests.support.waiting import wait_until

MEBIBYTE = 1 << 20
HOG = costly.memory_hog_on_demand()
HUNGRY = np.array([1024], np.int32)
PLACES = {
    "origin": f"user-{os.geteuid()}/origin-a",
    "principal": f"user-{os.geteuid()}",
    "total": "",
}
LEVELS = tuple(PLACES)


def needs_cgroup(controller: Controller) -> None:
    """Skip where this host lets no group be limited so."""
    tree = cgroup.discover()
    held = tree is not None and tree.holds(controller)
    if tree is not None:
        tree.remove()
    if not held:
        pytest.skip(f"no writable {controller} cgroup: the limit is refused here, as tested below")


def tree_of(pid: int) -> Path:
    """The directory of a broker's tree in the hierarchy that limits the processor."""
    own = own_cgroups()
    parent = own.version_1.get("cpu") or own.version_2
    assert parent is not None
    return parent / f"model-loader-{pid}-{start_time(pid)}"


def hog_error(session: RawSession, model_id: str) -> Any:
    """Let a model take a gibibyte; returns the error."""
    with pytest.raises(grpc.RpcError) as caught:
        session.compute(model_id, HUNGRY)
    return detail_of(caught.value)


@pytest.mark.parametrize("name", SHARED_LIMITS)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, 2**53])
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Settings(directory="", **{name: value})


@pytest.mark.isolation
@pytest.mark.parametrize("level", LEVELS)
def test_memory_of_a_level_is_held_and_named(level: str) -> None:
    name = f"{level}_memory_bytes"
    settings: dict[str, Any] = {name: 256 * MEBIBYTE}
    needs_cgroup("memory")
    with (
        Service(**settings) as service,
        RawSession(service.directory, "a") as session,
    ):
        hog = session.load(HOG, relayed=True)
        other = session.load(small.add(), relayed=True)
        detail = hog_error(session, hog.model_id)
        assert (detail.cause, detail.limit) == ("out-of-memory", name)
        assert detail.maximum == 256 * MEBIBYTE
        assert detail.model_lost
        assert session.compute(other.model_id, ONE).outputs


@pytest.mark.isolation
def test_an_origin_at_its_memory_limit_leaves_another_origin_alone() -> None:
    needs_cgroup("memory")
    with (
        Service(origin_memory_bytes=256 * MEBIBYTE) as service,
        RawSession(service.directory, "a") as session,
        RawSession(service.directory, "b") as other,
    ):
        theirs = other.load(HOG, relayed=True)
        hog = session.load(HOG, relayed=True)
        with ThreadPoolExecutor() as pool:
            call = pool.submit(session.compute, hog.model_id, HUNGRY)
            # It would not fit beside the hog, if they shared the limit.
            assert other.compute(theirs.model_id, np.array([200], np.int32)).outputs
            error = call.exception(HANG_SECONDS)
        assert detail_of(cast(Any, error)).limit == "origin_memory_bytes"


@pytest.mark.isolation
@pytest.mark.parametrize("level", LEVELS)
def test_the_processors_of_a_level_are_throttled(level: str) -> None:
    settings: dict[str, Any] = {f"{level}_cpu_percent": 10}
    needs_cgroup("cpu")
    with (
        Service(**settings) as service,
        RawSession(service.directory, "a") as session,
    ):
        worker = session.load(costly.work(), relayed=True)
        spare = session.load(small.add(), relayed=True)
        group = tree_of(service.pid) / PLACES[level]

        def throttled() -> int:
            counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            return int(counts["nr_throttled"])

        def is_throttled() -> bool:
            """A tenth of a second of work is ten times its share, if the machine has so much."""
            session.compute(worker.model_id, np.array([300], np.int32))
            return throttled() >= before + 2

        before = throttled()
        wait_until(is_throttled, "being throttled")
        assert session.compute(spare.model_id, ONE).outputs


@pytest.mark.parametrize(
    "name", [f"{level}_{what}" for level in LEVELS for what in ("memory_bytes", "cpu_percent")]
)
def test_what_no_cgroup_holds_is_refused_by_name(name: str) -> None:
    settings: dict[str, Any] = {name: 100}
    service = Service(cgroups=False, **settings)
    assert service.said["error"]["cause"] == "unsupported"
    assert f"the limit {name} needs a writable" in service.said["error"]["message"]
    assert service.wait() == 1
