"""Models by name that are parked: each comes back as it was loaded, whatever the operator does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.repository.files import MODEL
from loader_service.writer import small, stateful
from tests.repository.folders import put
from tests.support.memories import memories
from tests.support.raw_client import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.isolation, pytest.mark.slow]

ONE = np.ones(1, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's folder, with a version, and with a model that keeps state."""
    put(tmp_path, "adder", 1, small.add(1))
    put(tmp_path, "counter", 1, stateful.counter())
    return tmp_path


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    """A service that looks into the folder all the time, and parks what was not called just now."""
    with Service(
        repository=str(folder),
        repository_seconds=0.05,
        ping_seconds=0.05,
        keep_alive_seconds=0.1,
    ) as service:
        yield service


def processes(connection: ml.Connection) -> dict[str, int]:
    """Which process each model has that was loaded by name: 0 for none."""
    return {row.label: row.worker_pid for row in connection.models()}


def versions(connection: ml.Connection) -> list[int]:
    """Which versions of the adder serve."""
    return [model.version for model in connection.named_models() if model.name == "adder"]


@pytest.mark.parametrize("relay", [False, True])
def test_a_parked_version_comes_back_as_it_was_loaded(
    service: Service, folder: Path, relay: bool
) -> None:
    with (
        ml.connect(service.directory, relay=relay) as connection,
        ml.create_context(connection=connection) as context,
    ):
        loader = ml.MLModelLoader(context)

        def is_parked() -> bool:
            return processes(connection)["adder:1"] == 0

        with loader.load_by_name("adder") as model:
            for _ in range(2):
                wait_until(is_parked, "parked")
                assert model.compute(ONE) == 2

            # Another version serves, this one's file is changed, and then it is gone.
            wait_until(is_parked, "parked")
            put(folder, "adder", 2, small.add(2))
            wait_until(lambda: versions(connection) == [1, 2], "version 2")
            (folder / "adder" / "1" / MODEL).write_bytes(small.add(70))
            wait_until(lambda: "the model adder:1 is not served" in service.log(), "the change")
            assert model.compute(ONE) == 2
            (folder / "adder" / "1").rename(folder / "adder" / ".1")
            wait_until(lambda: versions(connection) == [2], "its end")
            wait_until(is_parked, "parked")
            assert model.compute(ONE) == 2
            with loader.load_by_name("adder") as other:
                assert other.compute(ONE) == 3


def test_what_keeps_state_stays_and_all_bytes_are_let_go_of(service: Service, folder: Path) -> None:
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection) as context,
    ):
        loader = ml.MLModelLoader(context)
        counter, model = loader.load_by_name("counter"), loader.load_by_name("adder")
        for count in (1, 2):
            wait_until(lambda: processes(connection)["adder:1"] == 0, "parked")
            assert processes(connection)["counter:1"] == counter.isolation.worker_pid
            assert counter.compute(ONE) == count
            assert model.compute(ONE) == 2
        wait_until(lambda: processes(connection)["adder:1"] == 0, "parked")
        for name in ("counter", "adder"):
            (folder / name / "1").rename(folder / name / ".1")
        wait_until(lambda: not connection.named_models(), "the end of both versions")
        assert memories(service.pid) > 0
    wait_until(lambda: memories(service.pid) == 0, "the end of their bytes")
