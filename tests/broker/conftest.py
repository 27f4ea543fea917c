"""Services to test the broker with: one for each test file, with a model that must not notice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loader_service.writer import small
from tests.support.raw_client import RawSession, Service, exchange_over

ONE = np.array([1], np.float32)


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Path:
    """Give the test a runtime folder of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return short_folder


class Bystander:
    """A model of another session that goes on answering, whatever the test does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.session = RawSession(service.directory, "bystander")
        reply = self.session.load(small.add())
        self.model_id = reply.model_id
        self.pid = reply.isolation.worker_pid
        self._channel = self.session.channel(reply.model_id)

    def is_undisturbed(self) -> None:
        """Assert that it answers, that it is the only worker left, and that nothing was logged."""
        answer = exchange_over(self._channel, [ONE])
        assert np.frombuffer(answer.tensors[0], np.float32) == 2
        self._service.wait_for_workers([self.pid])
        assert self.session.models() == [self.model_id]
        assert "Traceback" not in self._service.log(), self._service.log()
        assert "never retrieved" not in self._service.log(), self._service.log()

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self.session.close()


@pytest.fixture(scope="module")
def lone_service() -> Iterator[Service]:
    """A service with the default limits, but quick to give up."""
    with Service({"compute_seconds": 1, "load_seconds": 5, "models_per_origin": 4}) as service:
        yield service


@pytest.fixture(scope="module")
def bystander(lone_service: Service) -> Iterator[Bystander]:
    """The model that must not notice."""
    model = Bystander(lone_service)
    yield model
    model.close()


@pytest.fixture
def service(lone_service: Service, bystander: Bystander) -> Iterator[Service]:
    """The file's service; after the test the bystander must be alone and undisturbed."""
    yield lone_service
    bystander.is_undisturbed()


@pytest.fixture
def session(service: Service) -> Iterator[RawSession]:
    """A session of the test's own."""
    with RawSession(service.directory) as session:
        yield session
