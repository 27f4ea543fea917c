"""A service of probes for each file, and a model of the same broker that must not notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.probes import Probe, ProbeService


@pytest.fixture(scope="module")
def lone_service() -> Iterator[ProbeService]:
    """A service of probes with every layer."""
    with ProbeService(limits={"compute_seconds": 5}) as service:
        yield service


@pytest.fixture(scope="module")
def bystander(lone_service: ProbeService) -> Iterator[Probe]:
    """The model that must not notice."""
    with lone_service.probe() as probe:
        yield probe


@pytest.fixture(scope="module")
def plain(lone_service: ProbeService) -> Iterator[Probe]:
    """A worker for a load that names no device, in a file that is about one."""
    with lone_service.probe() as probe:
        yield probe


@pytest.fixture(scope="module")
def granted(lone_service: ProbeService, request: pytest.FixtureRequest) -> Iterator[Probe]:
    """A worker with the file's DEVICE, which survives what the tests do with it."""
    with lone_service.probe(device=request.module.DEVICE) as probe:
        yield probe


@pytest.fixture
def service(lone_service: ProbeService, bystander: Probe) -> Iterator[ProbeService]:
    """The file's service; after each test the bystander answers, and is the only worker left."""
    yield lone_service
    assert bystander.works()
    lone_service.wait_for_workers([bystander.pid])
    assert "Traceback" not in lone_service.log(), lone_service.log()


@pytest.fixture
def probe(service: ProbeService) -> Iterator[Probe]:
    """A worker of the test's own."""
    with service.probe() as probe:
        yield probe
