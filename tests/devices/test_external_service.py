"""External delegates behind the service: honest ones work, and liars cost their own worker only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import model_loader as ml
from loader_service.devices.catalogue import enabled_devices, grants_together
from loader_service.sandbox.grants import NOTHING
from tests.devices.split_model import expected, split_model
from tests.support.host import user_namespaces_usable

pytestmark = pytest.mark.isolation

X = np.array([[-2, -1, 0, 3]], np.float32)
AUTOMATIC = {"execution_preference": "fast_single_answer"}
"""Any option that honest and lying devices honour: without one no device is asked."""
LIARS = (
    "abort",
    "fork",
    "forgets",
    "hang",
    "hang-prepare",
    "invoke",
    "kernel-prepare",
    "late-size",
    "open",
    "prepare",
    "size",
    "socket",
)
BROKEN = ("crash-create", "create", "no-prepare", "opaque", "stranger")


def named(fault: str, little: Path) -> str:
    """The tests' delegate with a fault, as an operator names it."""
    return f"external:{fault}={little},fault={fault}"


@pytest.fixture(scope="module")
def service(little: Path) -> Iterator[ml.Connection]:
    """A service with an honest device, and one that crashes."""
    good = f"external:good={little}"
    with ml.embed(devices=(good, named("crash", little))) as connection:
        yield connection


@pytest.fixture(scope="module")
def liars(little: Path) -> Iterator[ml.Connection]:
    """A service with a device for each lie."""
    limits = ml.Limits(load_seconds=20, compute_seconds=2)
    faults = [named(fault, little) for fault in (*LIARS, *BROKEN)]
    with ml.embed(devices=faults, limits=limits) as connection:
        yield connection


def load(connection: ml.Connection, **options: object) -> ml.MLModel:
    """Load the model that a device takes in two pieces."""
    context = ml.create_context(connection=connection, **options)  # type: ignore[arg-type]
    return ml.MLModelLoader(context).load(split_model())


def test_an_honest_device_runs_its_pieces(service: ml.Connection) -> None:
    model = load(service, accelerator_name="external:good")
    for _ in range(2):
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
    report = model.delegation()
    assert report is not None
    assert [(part.device, part.nodes) for part in report.partitions] == [
        ("external:good", 2),
        ("external:good", 3),
        ("xnnpack", 1),
    ]
    assert [reason.operator for reason in report.reasons] == ["LOGISTIC"]
    model.close()


def test_the_largest_partition_alone_if_that_is_asked(service: ml.Connection) -> None:
    model = load(service, accelerator_name="external:good", max_number_delegated_partitions=1)
    np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
    report = model.delegation()
    assert report is not None
    assert [part.nodes for part in report.partitions if part.device == "external:good"] == [3]
    model.close()


def test_its_sandbox_is_that_of_a_plain_worker(service: ml.Connection, little: Path) -> None:
    model = load(service, accelerator_name="external:good")
    plain = load(service)
    assert model.isolation.layers == plain.isolation.layers
    assert model.isolation.missing == plain.isolation.missing
    assert "seccomp" in model.isolation.layers
    # Nothing is granted, so the table of system calls is that of always.
    assert grants_together(enabled_devices([f"external:good={little}"])) == NOTHING
    assert model.isolation.devices["external:good"] == ()
    model.close()
    plain.close()


@pytest.mark.slow
@pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)
def test_it_opens_the_device_nodes_that_it_is_granted(little: Path) -> None:
    without = named("needs-node", little)
    with ml.embed(devices=(without, f"external:has={little},/dev/zero,fault=needs-node")) as served:
        model = load(served, accelerator_name="external:has")
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
        assert model.isolation.devices["external:has"] == (
            "opens /dev/zero",
            "system calls: device-nodes",
        )
        model = load(served, accelerator_name="external:needs-node")
        with pytest.raises(ml.OperationError, match="it opened no node"):
            model.compute(X)


def test_a_crash_costs_its_own_worker_only(service: ml.Connection) -> None:
    other = load(service, accelerator_name="external:good")
    model = load(service, accelerator_name="external:crash")
    with pytest.raises(ml.OperationError, match="crashed with SIGSEGV"):
        model.compute(X)
    np.testing.assert_allclose(other.compute(X), expected(X), rtol=1e-6)
    model.close()
    other.close()


def test_the_cache_is_not_for_devices_that_have_nothing_to_keep(service: ml.Connection) -> None:
    with pytest.raises(ml.NotSupportedError, match="honours cache_token"):
        load(service, accelerator_name="external:good", cache_token=bytes(32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("invoke", ml.OperationError, "external:invoke could not run: its kernel ended"),
        ("late-size", ml.OperationError, "external:late-size could not run: it made tensor"),
        ("open", ml.OperationError, "it opened no file"),
        ("abort", ml.OperationError, "SIGABRT"),
        ("socket", ml.SecurityError, "a system call that its sandbox forbids"),
        ("fork", ml.SecurityError, "a system call that its sandbox forbids"),
        ("hang", ml.TimeoutError, "deadline passed|compute_seconds"),
    ],
)
def test_a_liar_that_was_named_fails_at_the_run(
    liars: ml.Connection, fault: str, error: type[Exception], words: str
) -> None:
    other = load(liars)
    model = load(liars, accelerator_name=f"external:{fault}")
    with pytest.raises(error, match=words):
        model.compute(X)
    np.testing.assert_allclose(other.compute(X), expected(X), rtol=1e-6)
    model.close()
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("kernel-prepare", ml.OperationError, "external:kernel-prepare could not prepare"),
        ("size", ml.OperationError, r"gives tensor \d the shape \(1, 5\), and the model"),
        ("forgets", ml.OperationError, "when it was asked, and not now"),
        ("prepare", ml.NotSupportedError, "disabled: its Prepare ended with status 1"),
        *((fault, ml.NotSupportedError, "is disabled: ") for fault in BROKEN),
    ],
)
def test_a_liar_that_was_named_fails_at_the_load(
    liars: ml.Connection, fault: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(liars, accelerator_name=f"external:{fault}")


@pytest.mark.slow
def test_a_library_that_hangs_at_the_load_is_ended_by_its_deadline(little: Path) -> None:
    limits = ml.Limits(load_seconds=3)
    with ml.embed(devices=[named("hang-prepare", little)], limits=limits) as connection:
        other = load(connection)
        with pytest.raises(ml.TimeoutError, match="load_seconds"):
            load(connection, accelerator_name="external:hang-prepare")
        np.testing.assert_allclose(other.compute(X), expected(X), rtol=1e-6)
        other.close()


@pytest.mark.slow
def test_a_load_waits_for_a_self_test_no_longer_than_it_may_take(little: Path) -> None:
    limits = ml.Limits(load_seconds=2)
    # Their self-tests come one after the other, and each takes as long as one may.
    hanging = [f"external:{number}={little},fault=hang-create" for number in range(6)]
    with ml.embed(devices=hanging, limits=limits) as connection:
        with pytest.raises(ml.TimeoutError, match="load_seconds"):
            load(connection, accelerator_name="external:5")
        model = load(connection)
        np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
        model.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        ("invoke", ["failed in a run, the CPU answered"]),
        ("late-size", ["failed in a run, the CPU answered"]),
        ("size", ["was left out, the CPU runs its part"]),
        ("kernel-prepare", ["was left out, the CPU runs its part"]),
        ("forgets", ["was left out, the CPU runs its part"]),
        ("crash-create", ["cannot be used: its test ended by SIG"]),
    ],
)
def test_the_cpu_answers_where_no_device_was_named(
    little: Path, fault: str, steps: list[str]
) -> None:
    with ml.embed(devices=[named(fault, little)]) as connection:
        model = load(connection, **AUTOMATIC)
        for _ in range(4):
            np.testing.assert_allclose(model.compute(X), expected(X), rtol=1e-6)
        report = model.delegation()
        assert report is not None
        for step in steps:
            assert any(step in said for said in report.steps), report.steps
        model.close()
