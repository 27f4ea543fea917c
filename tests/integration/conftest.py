"""A service to test against: a private broker for each module, and the two roads to a model."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import model_loader as ml
from loader_service.runtime.runtimes import installed_runtimes

RUNTIMES = [
    runtime.name
    for runtime in installed_runtimes()
    # The second run is for the second runtime: the first one has had its own.
    if runtime.name in os.environ.get("MODEL_LOADER_TEST_RUNTIMES", runtime.name).split(",")
]


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Every runtime that is installed here."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def connection(runtime: str) -> Iterator[ml.Connection]:
    """A connection to a private broker with the default limits."""
    with ml.embed(runtime=runtime) as connection:
        yield connection


@pytest.fixture(scope="module", params=["direct", "relayed"])
def road(request: pytest.FixtureRequest, connection: ml.Connection) -> Iterator[ml.Connection]:
    """The direct channel, and gRPC relayed by the broker."""
    yield from either_road(request.param, connection)


def either_road(road: str, connection: ml.Connection) -> Iterator[ml.Connection]:
    """Give the connection itself for "direct", and one that is relayed for "relayed"."""
    if road == "direct":
        yield connection
        return
    with ml.connect(connection.address, relay=True) as relayed:
        yield relayed


@pytest.fixture
def loader(connection: ml.Connection) -> Iterator[ml.MLModelLoader]:
    """A loader on the direct channel."""
    with ml.create_context(connection=connection) as context:
        yield ml.MLModelLoader(context)


@pytest.fixture
def road_loader(road: ml.Connection) -> Iterator[ml.MLModelLoader]:
    """A loader on each road."""
    with ml.create_context(connection=road) as context:
        yield ml.MLModelLoader(context)


def broker_pid(connection: ml.Connection) -> int:
    """The process id of an embedded broker."""
    pid = connection.broker_pid
    assert pid is not None
    assert pid != os.getpid()
    return pid
