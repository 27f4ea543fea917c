"""Devices that start threads when they are loaded: in workers executed afresh, and as strict."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.devices.catalogue import OPENVINO_PARTITIONS
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from loader_service.writer.warm_up import warm_up_model
from tests.devices.little_delegate import compile_delegate
from tests.devices.openvino_worker import need_openvino
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
OF_THREADS = (
    *("Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters"),
)
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


def statuses_of(model: ml.MLModel) -> list[dict[str, str]]:
    """What the kernel tells of each thread of a model's worker."""
    tasks = Path(f"/proc/{model.isolation.worker_pid}/task")
    texts = [(task / "status").read_text() for task in tasks.iterdir()]
    return [
        {
            name: value.strip()
            for name, _, value in (line.partition(":") for line in text.split("\n"))
        }
        for text in texts
    ]


def protections_of(model: ml.MLModel) -> list[list[str]]:
    """What of that is each thread's own, and must be the same in all threads of all workers.

    Of its user, which is another in each worker of root's, whether it is this one.
    """
    found = []
    for status in statuses_of(model):
        (user,) = {*status["Uid"].split(), *status["Gid"].split()}
        found.append([status[name] for name in OF_THREADS] + [str(user == str(os.geteuid()))])
    return found


def peek(pid: int) -> int:
    """Try to read a process's memory; returns the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = ctypes.create_string_buffer(8)
    ours, theirs = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8), (ctypes.c_size_t * 2)(4096, 8)
    libc.process_vm_readv(pid, ours, 1, theirs, 1, 0)
    return ctypes.get_errno()


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
        assert len(statuses_of(model)) == 3


def test_its_worker_is_executed_afresh_and_every_thread_is_as_confined(
    service: ml.Connection,
) -> None:
    with load(service, accelerator_name="external:threads") as model, load(service) as plain:
        assert "worker.executed" in program_of(model)
        assert "worker.zygote" in program_of(plain)
        assert model.isolation.layers == plain.isolation.layers
        assert model.isolation.missing == plain.isolation.missing
        assert model.isolation.devices["external:threads"] == ("12 more threads", AFRESH)
        (own,) = protections_of(plain)
        assert protections_of(model) == [own] * 3
        for worker in (model.isolation.worker_pid, plain.isolation.worker_pid):
            mounts = Path(f"/proc/{worker}/mountinfo").read_text().splitlines()
            assert [line.split()[4] for line in mounts] == ["/"]
            if os.geteuid() == 0:
                assert sorted(os.listdir(f"/proc/{worker}/fd")) == ["0", "1", "2", "3", "4"]
            else:
                # Not even its own user may look into it.
                assert peek(worker) == errno.EPERM


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
@pytest.mark.parametrize(
    ("at_load", "words"),
    [
        ('if (open("/usr", O_RDONLY | O_DIRECTORY) < 0) abort()', "leaves a directory open"),
        ("if (fork() == 0) for (;;) pause()", "leaves another process behind"),
        ("abort()", "its test ended by SIGABRT"),
    ],
)
def test_what_a_library_leaves_behind_disables_it(tmp_path: Path, at_load: str, words: str) -> None:
    library = compile_delegate(tmp_path, threads=1, at_load=at_load)
    with ml.embed(devices=[f"external:leaves={library}"]) as connection:
        with pytest.raises(ml.NotSupportedError, match=f"is disabled: .*{words}"):
            load(connection, accelerator_name="external:leaves")
        with load(connection, execution_preference="fast_single_answer") as model:
            np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)


@pytest.mark.slow
def test_a_working_directory_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    library = compile_delegate(tmp_path, threads=2, at_load='if (chdir("/usr") != 0) abort()')
    device = f"external:has={library},/dev/zero,fault=needs-node"
    with (
        ml.embed(devices=[device]) as connection,
        load(connection, accelerator_name="external:has") as model,
    ):
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)


@pytest.mark.slow
def test_threads_may_end_while_it_is_loaded(tmp_path: Path) -> None:
    at_load = "for (int i = 0; i < 300; i++) { pthread_t brief; " + (
        "if (pthread_create(&brief, NULL, end_at_once, NULL) == 0) pthread_detach(brief); }"
    )
    library = compile_delegate(tmp_path, threads=1, at_load=at_load)
    with ml.embed(devices=[f"external:brief={library}"]) as connection:
        for _ in range(5):
            with load(connection, accelerator_name="external:brief") as model:
                np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)


@pytest.mark.slow
def test_many_at_once_come_up_one_after_the_other(service: ml.Connection) -> None:
    models = [load(service, accelerator_name="external:threads") for _ in range(4)]
    for model in models:
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
    assert len({model.isolation.worker_pid for model in models}) == 4
    for model in models:
        model.close()


@pytest.mark.slow
def test_one_that_hangs_is_given_up_and_others_load(tmp_path: Path) -> None:
    hangs = "if (getpid() == 1) for (;;) pause()"  # in a worker, and not in the self-test
    library = compile_delegate(tmp_path, threads=1, at_load=hangs)
    with (
        Service(None, "auto", devices=[f"external:hangs={library}"], spawn_seconds=2) as service,
        ml.connect(service.directory) as connection,
    ):
        with pytest.raises(ml.NotSupportedError, match="a device was not loaded within 2 s"):
            load(connection, accelerator_name="external:hangs")
        with load(connection) as model:
            np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)


class ThreadedService(Service):
    """A service that holds OpenVINO to be a device with threads."""

    module = "tests.devices.threaded_broker"

    def __init__(self) -> None:
        super().__init__(None, "auto", devices=["openvino"])


@pytest.mark.slow
def test_a_device_with_a_file_and_machine_code_of_its_own_works_so_too() -> None:
    need_openvino()
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


@pytest.mark.slow
def test_each_partition_of_openvinos_has_its_threads() -> None:
    """Additions between operators that it does not translate, and more than it is given."""
    need_openvino()
    writer = ModelWriter()
    graph = writer.subgraph()
    value = graph.input("x", TensorType.FLOAT32, (4,))
    one = graph.constant("one", np.ones(4, np.float32))
    for number in range(2 * OPENVINO_PARTITIONS + 4):
        code = BuiltinOperator.ADD if number % 2 else BuiltinOperator.ATAN2
        result = graph.tensor(f"t{number}", TensorType.FLOAT32, (4,))
        graph.operator(code, [value, one], [result])
        value = result
    graph.output(value)
    x = np.array([-2, -1, 0, 3], np.float32)
    with ml.embed(devices=["openvino"]) as connection:
        plain = ml.create_context(connection=connection)
        wanted = ml.MLModelLoader(plain).load(writer.write()).compute(x)
        context = ml.create_context(
            connection=connection, accelerator_name="openvino", max_number_delegated_partitions=0
        )
        with ml.MLModelLoader(context).load(writer.write()) as model:
            np.testing.assert_allclose(model.compute(x), wanted, rtol=1e-6)
            report = model.delegation()
    assert report is not None
    devices = [part.device for part in report.partitions]
    assert devices.count("openvino:CPU") == OPENVINO_PARTITIONS
    assert sum("it takes no more" in reason.reason for reason in report.reasons) == 1
