"""What a worker is, seen from outside by whoever may look."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

import model_loader as ml
from loader_service.writer import small

from .conftest import broker_pid

pytestmark = pytest.mark.isolation

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
ONE = np.array([1], np.float32)


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_twenty_models_are_twenty_locked_down_processes(connection: ml.Connection) -> None:
    contexts = [
        ml.create_context(connection=other)
        for other in (connection, ml.connect(connection.address, origin="other"))
    ]
    models = [ml.MLModelLoader(contexts[n % 2]).load(small.add(n)) for n in range(20)]
    pids = {model.isolation.worker_pid for model in models}
    assert len(pids) == 20
    for model in models:
        pid = model.isolation.worker_pid
        fields = status(pid)
        assert fields["Seccomp"] == "2"
        assert fields["NoNewPrivs"] == "1"
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert int(fields["CapBnd"], 16) == int(fields["CapAmb"], 16) == 0
        assert int(fields["PPid"]) == broker_pid(connection)
        assert fields["NSpid"].split()[-1] == "1"
        assert fields["Threads"] == "1"
        assert set(model.isolation.layers) >= {"seccomp", "no-new-privileges", "rlimits"}
    for number, model in enumerate(models):
        assert model.compute(ONE) == number + 1
    for context in contexts:
        context.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_each_worker_has_namespaces_of_its_own(connection: ml.Connection) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may read the namespaces of a process that is not dumpable")
    with ml.create_context(connection=connection) as context:
        models = [ml.MLModelLoader(context).load(small.add()) for _ in range(2)]
        pids = [model.isolation.worker_pid for model in models]
        for name in NAMESPACES:
            seen = {os.readlink(f"/proc/{pid}/ns/{name}") for pid in (*pids, os.getpid())}
            assert len(seen) == 3, name


def test_a_worker_has_five_descriptors_and_an_empty_root(connection: ml.Connection) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may read the descriptors of a process that is not dumpable")
    with ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        pid = model.isolation.worker_pid
        descriptors = {
            int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()
        }
        assert sorted(descriptors) == [0, 1, 2, 3, 4]
        assert descriptors[0] == descriptors[1] == "/dev/null"
        assert descriptors[2].startswith("pipe:")
        assert descriptors[3].startswith("socket:")
        assert descriptors[4].startswith("socket:")
        assert list(Path(f"/proc/{pid}/root").iterdir()) == []
        assert Path(f"/proc/{pid}/environ").read_bytes().count(b"\0") <= 8


def test_as_root_each_worker_has_a_uid_of_its_own(connection: ml.Connection) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root all workers share the user's uid: model.isolation says so")
    with ml.create_context(connection=connection) as context:
        models = [ml.MLModelLoader(context).load(small.add()) for _ in range(3)]
        uids = {status(model.isolation.worker_pid)["Uid"] for model in models}
        assert len(uids) == 3
        assert not any(uid.startswith("0\t") for uid in uids)
        assert all("unprivileged-uid" in model.isolation.layers for model in models)


def test_without_root_the_shared_uid_is_said(connection: ml.Connection) -> None:
    if os.geteuid() == 0:
        pytest.skip("root gives each worker a uid of its own")
    with ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        assert "unprivileged-uid" not in model.isolation.layers
        assert "unprivileged-uid" in model.isolation.missing


def test_the_workers_process_never_loads_grpc_or_protobuf(connection: ml.Connection) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may read the mappings of a process that is not dumpable")
    with ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        pid = model.isolation.worker_pid
        maps = Path(f"/proc/{pid}/maps").read_text()
    assert "cygrpc" not in maps
    assert "_upb" not in maps
    assert "multiarray" in maps, "the mappings were readable"


def test_required_layers_are_there_or_the_load_is_refused(connection: ml.Connection) -> None:
    with (
        ml.create_context(connection=connection, required_layers=("seccomp",)) as context,
        ml.MLModelLoader(context).load(small.add()) as model,
    ):
        assert "seccomp" in model.isolation.layers
    with (
        ml.create_context(connection=connection, required_layers=("moat",)) as context,
        pytest.raises(ml.NotSupportedError, match="moat"),
    ):
        ml.MLModelLoader(context).load(small.add())
