"""Devices that start threads when they are loaded: in workers executed afresh, and as strict."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer.warm_up import warm_up_model
from tests.devices.openvino_worker import need_openvino_in_a_service
from tests.devices.split_model import expected, split_model
from tests.support.host import user_namespaces_usable
from tests.support.raw_client import Service

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(
        not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
    ),
]

X = np.array([[-2, -1, 0, 3]], np.float32)
AFRESH = "a process executed afresh"
USER_CHANGE = 0xC0
"""CAP_SETGID and CAP_SETUID."""


def faulty(fault: str, library: Path) -> str:
    """The tests' delegate with a fault, as an operator names it."""
    return f"external:{fault}={library},fault={fault}"


@pytest.fixture(scope="module")
def service(threaded: Path, little: Path) -> Iterator[ml.Connection]:
    """A service with an honest device that has threads, and ones that do what they may not."""
    devices = [f"external:threads={threaded}", faulty("thread", little)]
    devices += [faulty(fault, threaded) for fault in ("early", "open", "socket")]
    with ml.embed(devices=devices) as connection:
        yield connection


def load(connection: ml.Connection, **options: object) -> ml.MLModel:
    """Load the model that a device takes in two pieces."""
    context = ml.create_context(connection=connection, **options)  # type: ignore[arg-type]
    return ml.MLModelLoader(context).load(split_model())


def program_of(model: ml.MLModel) -> str:
    """The command line of a model's worker."""
    return Path(f"/proc/{model.isolation.worker_pid}/cmdline").read_text()


def threads_of(model: ml.MLModel) -> int:
    """How many threads a model's worker has."""
    return len(os.listdir(f"/proc/{model.isolation.worker_pid}/task"))


def test_its_threads_run_its_kernels(service: ml.Connection) -> None:
    with load(service, accelerator_name="external:threads") as model:
        for _ in range(3):
            np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
        report = model.delegation()
        assert report is not None
        assert [part.nodes for part in report.partitions if part.device == "external:threads"] == [
            2,
            3,
        ]
        assert report.steps == ()
        assert threads_of(model) == 3


def test_its_worker_is_executed_afresh_and_has_every_layer(service: ml.Connection) -> None:
    with load(service, accelerator_name="external:threads") as model, load(service) as plain:
        assert "worker.executed" in program_of(model)
        assert "worker.zygote" in program_of(plain)
        assert model.isolation.layers == plain.isolation.layers
        assert model.isolation.missing == plain.isolation.missing
        assert model.isolation.devices["external:threads"] == ("12 more threads", AFRESH)
        # The filter of system calls is on each thread.
        tasks = Path(f"/proc/{model.isolation.worker_pid}/task").iterdir()
        modes = [
            re.findall(r"^Seccomp:\t(\d)", (task / "status").read_text(), re.M) for task in tasks
        ]
        assert modes == [["2"]] * 3
        mounts = Path(f"/proc/{model.isolation.worker_pid}/mountinfo").read_text()
        assert mounts.count("\n") == 1


def test_a_device_that_starts_threads_later_is_forked(service: ml.Connection) -> None:
    with load(service, accelerator_name="external:thread") as model:
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
        assert "worker.zygote" in program_of(model)
        assert model.isolation.devices["external:thread"] == ("10 more threads",)


def test_while_it_is_loaded_it_may_read_and_no_more(service: ml.Connection) -> None:
    with load(service, accelerator_name="external:early") as model:
        with pytest.raises(ml.OperationError) as caught:
            model.compute(X)
        found = re.search(
            r"rights (\w+), no new ones (\d), reads (\d+), writes (\d+)", str(caught.value)
        )
        assert found is not None
        rights, no_new, reads, writes = found.groups()
        # Root stays root until the library is loaded, and can then become the worker's user only.
        assert int(rights, 16) == (USER_CHANGE if os.geteuid() == 0 else 0)
        assert (no_new, reads) == ("1", "0")
        if "landlock" in model.isolation.layers:
            assert int(writes) == errno.EACCES


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("open", ml.OperationError, "it opened no file"),
        ("socket", ml.SecurityError, "a system call that its sandbox forbids"),
    ],
)
def test_its_threads_are_behind_the_lock_down(
    service: ml.Connection, fault: str, error: type[Exception], words: str
) -> None:
    with load(service) as other, load(service, accelerator_name=f"external:{fault}") as model:
        with pytest.raises(error, match=words):
            model.compute(X)
        np.testing.assert_allclose(other.compute(X), expected(X), rtol=1e-6)


@pytest.mark.slow
def test_it_opens_the_device_nodes_that_it_is_granted(threaded: Path) -> None:
    devices = [
        f"external:has={threaded},/dev/zero,fault=needs-node",
        faulty("needs-node", threaded),
    ]
    with ml.embed(devices=devices) as connection:
        with load(connection, accelerator_name="external:has") as model:
            np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
            granted = model.isolation.devices["external:has"]
            assert granted[0] == "opens /dev/zero"
            assert AFRESH in granted
            # Nothing else is mounted, and nothing of the host is left behind what is.
            mounts = Path(f"/proc/{model.isolation.worker_pid}/mountinfo").read_text().splitlines()
            assert [line.split()[4] for line in mounts] == ["/", "/dev/zero"]
        with (
            load(connection, accelerator_name="external:needs-node") as model,
            pytest.raises(ml.OperationError, match="it opened no node"),
        ):
            model.compute(X)


@pytest.mark.slow
def test_many_at_once_come_up_one_after_the_other(service: ml.Connection) -> None:
    models = [load(service, accelerator_name="external:threads") for _ in range(4)]
    for model in models:
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
    assert len({model.isolation.worker_pid for model in models}) == 4
    for model in models:
        model.close()


class ThreadedService(Service):
    """A service that holds OpenVINO to be a device with threads."""

    module = "tests.devices.threaded_broker"

    def __init__(self) -> None:
        super().__init__(None, "auto", devices=["openvino"])


@pytest.mark.slow
def test_a_device_with_a_file_and_machine_code_of_its_own_works_so_too() -> None:
    need_openvino_in_a_service()
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) / 16
    plain = ml.MLModelLoader(ml.create_context()).load(warm_up_model())
    with ThreadedService() as service, ml.connect(service.directory) as connection:
        for cache in ("miss", "hit"):
            context = ml.create_context(
                connection=connection, accelerator_name="openvino", cache_token=b"3" * 32
            )
            with ml.MLModelLoader(context).load(warm_up_model()) as model:
                np.testing.assert_allclose(model.compute(x), plain.compute(x), atol=1e-5)
                assert "worker.executed" in program_of(model)
                assert AFRESH in model.isolation.devices["openvino"]
                assert set(plain.isolation.layers) - set(model.isolation.layers) == set()
                report = model.delegation()
                assert report is not None
                assert [part.cache for part in report.partitions] == [cache]
    plain.close()
