"""Models by name: tried in a sandbox, served from the repository, and never given away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from loader_service.repository.files import MODEL
from loader_service.writer import hostile, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.repository.folders import put
from tests.support.memories import memories
from tests.support.raw_client import HANG_SECONDS, RawSession, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.isolation

ONE = np.ones(1, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's folder, with a first version."""
    folder = tmp_path_factory.mktemp("models")
    put(folder, "adder", 1, small.add(1), warm_up={"x": ONE})
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """A service that looks into the folder all the time."""
    with Service(repository=str(folder), repository_seconds=0.05) as service:
        yield service


@pytest.fixture
def loader(service: Service) -> Iterator[ml.MLModelLoader]:
    """A program's loader."""
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection) as context,
    ):
        yield ml.MLModelLoader(context)


def wait_for_log(service: Service, said: str) -> None:
    """Wait until the service has told that of a model."""
    deadline = time.monotonic() + HANG_SECONDS
    while said not in service.log():
        assert time.monotonic() < deadline, service.log()
        time.sleep(0.01)


def answer(model: ml.MLModel) -> float:
    """What a model that adds a number gives for 1."""
    with model:
        return float(model.compute(ONE)[0])


def versions(service: Service) -> list[int]:
    """Which versions serve."""
    with RawSession(service.directory) as session:
        reply = session.call("ListNamedModels", pb.ListNamedModelsRequest())
    return [model.version for model in reply.models]


def test_a_model_is_loaded_by_its_name(
    service: Service, loader: ml.MLModelLoader, folder: Path
) -> None:
    with loader.load_by_name("adder") as model:
        assert float(model.compute(ONE)[0]) == 2
        assert model.report.sha256 == hashlib.sha256(small.add(1)).hexdigest()
        assert model.report.size == len(small.add(1))
        with RawSession(service.directory) as session:
            rows = session.call("ListModels", pb.ListModelsRequest()).models
            assert [row.label for row in rows] == ["adder:1"]
            (named,) = session.call("ListNamedModels", pb.ListNamedModelsRequest()).models
            assert (named.name, named.version, named.size) == ("adder", 1, len(small.add(1)))
    for name, version in (("adder", 2), ("nobody", None), ("", None), ("adder/1", None)):
        with pytest.raises(ml.NotFoundError):
            loader.load_by_name(name, version)
    wrong: list[tuple[Any, Any]] = [(b"adder", 1), ("adder", "1"), ("adder", 0), ("adder", True)]
    for name, version in wrong:
        with pytest.raises(ml.ConstraintError):
            loader.load_by_name(name, version)

    async def asynchronously() -> float:
        async with (
            await ml.aio.connect(service.directory) as connection,
            await ml.aio.create_context(connection=connection) as context,
            await ml.aio.MLModelLoader(context).load_by_name("adder", 1) as model,
        ):
            return float((await model.compute(ONE))[0])

    assert asyncio.run(asynchronously()) == 2


def test_a_relayed_client_loads_by_name_too(service: Service) -> None:
    with (
        ml.connect(service.directory, relay=True) as connection,
        ml.create_context(connection=connection) as context,
    ):
        assert answer(ml.MLModelLoader(context).load_by_name("adder", 1)) == 2


def test_only_a_version_that_runs_takes_over(
    service: Service, loader: ml.MLModelLoader, folder: Path
) -> None:
    """A crash, an operator that there is not, wrong inputs, a wrong pin: the good one serves on."""
    running = loader.load_by_name("adder", 1)
    for version, model, warm_up in (
        (2, hostile.abort_at_load(), None),
        (3, b"no model", None),
        (4, hostile.custom_operator(), None),
        (5, small.add(5), {"y": ONE}),
        (6, small.add(6), {"x": np.ones(3, np.float32)}),
    ):
        put(folder, "adder", version, model, warm_up=warm_up)
        wait_for_log(service, f"the model adder:{version} is not served")
        assert answer(loader.load_by_name("adder")) == 2
        with pytest.raises(ml.NotFoundError, match=f"no version {version} of 'adder'; there is 1$"):
            loader.load_by_name("adder", version)
    put(folder, "adder", 7, small.add(7))
    wait_until(lambda: versions(service) == [1, 7], "version 7")
    assert answer(loader.load_by_name("adder")) == 8
    assert answer(loader.load_by_name("adder", 1)) == 2
    # What was changed for a bad one serves on as it was, and what is withdrawn is gone.
    (folder / "adder" / "7" / MODEL).write_bytes(small.add(70))
    wait_for_log(service, "adder:7 is not served: its SHA-256 is ")
    assert answer(loader.load_by_name("adder")) == 8
    (folder / "adder" / "7").rename(folder / "adder" / ".7")
    wait_until(lambda: versions(service) == [1], "its end")
    assert answer(loader.load_by_name("adder")) == 2
    with running:
        assert float(running.compute(ONE)[0]) == 2


def test_the_bytes_stay_with_the_service(service: Service, loader: ml.MLModelLoader) -> None:
    """What comes back is a name for one load; by its digest alone nobody may load the model."""
    with RawSession(service.directory, "thief") as session:
        request = pb.FindNamedModelRequest(name="adder")
        reply = session.call("FindNamedModel", request)
        digest = reply.model.sha256
        parts = [pb.LoadRequest(header=pb.LoadHeader(model_format="tflite", offer=reply.offer))]
        session.send_load(iter(parts))
        found = session.call("FindModel", pb.FindModelRequest(sha256=digest))
        assert found.offer == b""
        assert len(reply.SerializeToString()) < 200
    held, ours = memories(service.pid), memories(os.getpid())
    answer(loader.load_by_name("adder"))
    wait_until(lambda: memories(service.pid) <= held, "the end of its bytes")
    assert memories(os.getpid()) <= ours
