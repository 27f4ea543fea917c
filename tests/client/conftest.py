"""A fake service for each test, and models loaded from it on both faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import model_loader as ml
from model_loader_wire.data_types import DataType
from model_loader_wire.description import SignatureDescription
from tests.client import workers
from tests.client.fake_service import FakeModel, FakeService, echoing, tensor
from tests.client.workers import Behaviour

Load = Callable[..., ml.MLModel]


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service that listens in a directory of its own."""
    with FakeService() as service:
        yield service


@pytest.fixture
def connection(service: FakeService) -> Iterator[ml.Connection]:
    """A connection to the fake service, with direct channels."""
    with ml.connect(service.directory) as connection:
        yield connection


@pytest.fixture(params=["direct", "relayed"])
def road(service: FakeService, request: pytest.FixtureRequest) -> Iterator[ml.Connection]:
    """A connection of each kind."""
    with ml.connect(service.directory, relay=request.param == "relayed") as connection:
        yield connection


def put(
    service: FakeService,
    signatures: list[SignatureDescription] | None = None,
    behave: Behaviour = workers.echo,
    **facts: object,
) -> bytes:
    """Put a model into the service; gives the bytes to load. By default: float32 [2, 3]."""
    signatures = signatures or echoing(tensor("x", DataType.FLOAT32, (2, 3)))
    content = b"model %d" % len(service.files)
    service.files[content] = FakeModel(signatures, behave, **facts)  # type: ignore[arg-type]
    return content


@pytest.fixture
def load(service: FakeService, connection: ml.Connection) -> Iterator[Load]:
    """Put a model into the service and load it."""
    with ml.create_context(connection=connection) as context:
        loader = ml.MLModelLoader(context)

        def load(
            signatures: list[SignatureDescription] | None = None,
            behave: Behaviour = workers.echo,
            **facts: object,
        ) -> ml.MLModel:
            return loader.load(put(service, signatures, behave, **facts))

        yield load
