"""Devices over real workers: NNAPI's own list of tests re-expressed, and devices that lie.

The device is a delegate in C that the tests compile: float32 ADD and MUL. The models are chains of
small operators, with some between that it does not take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.delegation import TYPES
from tests.devices.little_delegate import compile_delegate
from tests.devices.models import chain, expected

pytestmark = pytest.mark.isolation

SPLIT = ["ADD", "ADD", "MUL", "FLOOR", "ADD", "MUL"]
"""Three operators for the device, one for the CPU, two for the device."""
X = np.array([-2.25, 0, 1.5, 100], np.float32)
LITTLE = "external:little"
SECONDS = 20.0
"""Longest wait for what takes some milliseconds."""

Service = Callable[..., ml.Connection]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' delegate, where every user may read it."""
    folder = tmp_path_factory.mktemp("delegate")
    return compile_delegate(folder)


@pytest.fixture(scope="module")
def service(library: Path) -> Iterator[Service]:
    """Makes a service whose one device has these options; the same one for the same options."""
    with ExitStack() as stack:

        @cache
        def made(fault: str = "", operators: str = "add,mul", **more: Any) -> ml.Connection:
            # A comma parts options, so several operators are named without one.
            device = f"{LITTLE}={library},operators={operators.replace(',', '+')}"
            device += f",fault={fault}" if fault else ""
            more.setdefault("limits", ml.Limits(compute_seconds=10))
            return stack.enter_context(ml.embed(devices=[device], **more))

        yield made


def load(connection: ml.Connection, operators: list[str], **options: Any) -> ml.MLModel:
    context = ml.create_context(connection=connection, **options)
    return ml.MLModelLoader(context).load(chain(operators))


def check(model: ml.MLModel, operators: list[str], scale: float = 1) -> None:
    """Compute once; the answer must be exactly the chain's own."""
    x = X * np.float32(scale)
    assert np.array_equal(model.compute(x), expected(operators, x))


def report(model: ml.MLModel) -> ml.Delegation:
    found = model.delegation()
    assert found is not None
    return found


def on_device(model: ml.MLModel) -> list[int]:
    """How many operators each partition of the device has."""
    return [item.nodes for item in report(model).partitions if item.device == LITTLE]


def steps(model: ml.MLModel) -> str:
    return "\n".join(report(model).steps)


def told(model: ml.MLModel, what: str) -> None:
    """Wait until the report says it: a worker tells on another socket than it answers on."""
    ends = time.monotonic() + SECONDS
    while what not in steps(model):
        assert time.monotonic() < ends, steps(model)
        time.sleep(0.01)


# NNAPI: the device is chosen by options.


def test_a_device_is_used_if_it_is_named(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name=LITTLE) as model:
        check(model, SPLIT)
        assert on_device(model) == [3, 2]
        assert [item.device for item in report(model).partitions][2:] == ["xnnpack"]
        assert {device.name for device in report(model).devices} == {LITTLE, "xnnpack"}
        (reason,) = report(model).reasons
        assert (reason.operator, reason.count) == ("FLOOR", 1)


def test_a_device_can_be_named_by_its_kind(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name="external") as model:
        assert on_device(model) == [3, 2]


@pytest.mark.parametrize("preference", ["undefined", "low_power", "fast_single_answer"])
def test_a_device_is_chosen_by_preference(service: Service, preference: str) -> None:
    with load(service(), SPLIT, execution_preference=preference) as model:
        check(model, SPLIT)
        assert on_device(model) == [3, 2]


def test_a_context_without_options_has_no_device(service: Service) -> None:
    with load(service(), SPLIT) as model:
        check(model, SPLIT)
        assert model.delegation() is None
        assert model.isolation.devices == {}
        assert model.report.kernels == "xnnpack"


def test_a_missing_device_is_an_error(service: Service) -> None:
    with pytest.raises(ml.NotSupportedError, match="no device 'external:coral' here"):
        load(service(), SPLIT, accelerator_name="external:coral")


@pytest.mark.slow
def test_a_device_whose_library_is_missing_is_an_error_only_if_it_is_named(tmp_path: Path) -> None:
    with ml.embed(devices=[f"external:gone={tmp_path}/gone.so"]) as connection:
        with pytest.raises(
            ml.NotSupportedError, match="cannot be used: the library of external:gone"
        ):
            load(connection, SPLIT, accelerator_name="external:gone")
        with load(connection, SPLIT, execution_preference="undefined") as model:
            check(model, SPLIT)
            assert "external:gone cannot be used" in steps(model)


# NNAPI: the CPU as a device may be disallowed.


def test_the_reference_device_is_used_only_if_that_is_allowed(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name="reference") as model:
        check(model, SPLIT)
        assert [item.device for item in report(model).partitions] == ["reference"]
    with load(service(), SPLIT, disallow_nnapi_cpu=True) as model:
        assert "reference" not in [device.name for device in report(model).devices]


def test_a_model_runs_on_the_cpu_if_the_device_supports_nothing(service: Service) -> None:
    operators = ["FLOOR", "ABS", "NEG"]
    with load(service(), operators, accelerator_name=LITTLE) as model:
        check(model, operators)
        assert on_device(model) == []
        assert "no operator goes to a device: the CPU's kernels run the model" in steps(model)
        assert sum(reason.count for reason in report(model).reasons) == 3


# TFLite: the seven cases of its partition limit.


@pytest.mark.parametrize(
    ("sizes", "most", "named", "taken"),
    [
        ([3, 2], 1, True, [3]),
        ([3, 2], 0, True, [3, 2]),
        ([3, 2], -1, True, [3, 2]),
        ([3, 2], 3, True, [3, 2]),
        ([2, 3], 1, True, [3]),
        ([1, 5, 2, 4], 2, True, [5, 4]),
        ([1, 5, 2, 4], 2, False, [5, 4]),
    ],
)
def test_the_largest_partitions_are_delegated(
    service: Service, sizes: list[int], most: int, named: bool, taken: list[int]
) -> None:
    operators: list[str] = []
    for size in sizes:
        operators += [*["ADD"] * size, "FLOOR"]
    operators.pop()
    options: dict[str, Any] = {"max_number_delegated_partitions": most}
    if named:
        options["accelerator_name"] = LITTLE
    with load(service(), operators, **options) as model:
        check(model, operators)
        assert on_device(model) == taken
        rest = len(operators) - sum(taken)
        others = [item for item in report(model).partitions if item.device != LITTLE]
        assert sum(item.nodes for item in others) == rest


def test_partitions_below_the_least_size_stay_on_the_cpu(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name=LITTLE, min_nodes_per_partition=3) as model:
        check(model, SPLIT)
        assert on_device(model) == [3]
        assert any("min_nodes_per_partition = 3" in item.reason for item in report(model).reasons)


# NNAPI: failures and errors are reported.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allow_fp16": True}, "honours allow_fp16"),
        ({"cache_token": bytes(32), "accelerator_name": LITTLE}, "honours cache_token"),
        (
            {"accelerator_name": "xnnpack", "max_number_delegated_partitions": 3},
            "honours max_number_delegated_partitions; there are xnnpack",
        ),
    ],
)
def test_an_option_that_no_device_honours_is_refused(
    service: Service, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ml.NotSupportedError, match=words):
        load(service(), SPLIT, **options)


def test_no_gpu_is_no_failure(service: Service) -> None:
    with load(service(), SPLIT, device_preference="gpu") as model:
        check(model, SPLIT)
        assert on_device(model) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["create", "prepare", "prepare-known", "kernel-prepare"])
def test_a_device_that_fails_at_compilation_fails_the_load_if_it_was_named(
    service: Service, fault: str
) -> None:
    with pytest.raises(ml.ModelLoaderError, match=LITTLE) as caught:
        load(service(fault), SPLIT, accelerator_name=LITTLE)
    assert caught.type in (ml.OperationError, ml.NotSupportedError)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "step"),
    [
        # These two are found by the self-test, before any model comes.
        ("create", "cannot be used: the library makes no delegate"),
        ("prepare", "cannot be used: its Prepare ended with status 1"),
        ("prepare-known", "was left out, it gave no verdicts: its Prepare ended with status 1"),
        ("kernel-prepare", "was left out, the CPU runs its part: "),
    ],
)
def test_a_device_that_fails_at_compilation_loses_the_model_to_the_cpu(
    service: Service, fault: str, step: str
) -> None:
    with load(service(fault), SPLIT, execution_preference="undefined") as model:
        check(model, SPLIT)
        assert on_device(model) == []
        assert f"{LITTLE} {step}" in steps(model)


def test_a_device_that_fails_in_a_run_is_stood_in_for_and_then_left_out(service: Service) -> None:
    with load(service("invoke"), SPLIT, execution_preference="undefined") as model:
        assert on_device(model) == [3, 2]
        check(model, SPLIT)
        told(model, f"{LITTLE} failed in a run, the CPU answered")
        for scale in (2, 3, 4, 5):
            check(model, SPLIT, scale)
        told(model, f"{LITTLE} was left out from now on")
        assert on_device(model) == []


def test_a_named_device_that_fails_in_a_run_is_not_stood_in_for(service: Service) -> None:
    with load(service("invoke"), SPLIT, accelerator_name=LITTLE) as model:
        for _ in range(5):
            with pytest.raises(ml.OperationError):
                model.compute(X)
        assert model.lost is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("crash", "crashed"), ("abort", "crashed"), ("socket", "policy-violation")],
)
def test_a_device_that_crashes_costs_its_own_worker(
    service: Service, fault: str, reason: str
) -> None:
    connection = service(fault)
    with (
        load(connection, SPLIT) as other,
        load(connection, SPLIT, execution_preference="undefined") as model,
    ):
        with pytest.raises((ml.OperationError, ml.SecurityError)):
            model.compute(X)
        assert model.lost is not None
        assert model.lost.reason == reason
        check(other, SPLIT)


@pytest.mark.slow
def test_a_deadline_is_not_waited_for_twice(service: Service) -> None:
    connection = service("hang", limits=None)
    with load(connection, SPLIT, execution_preference="undefined") as model:
        with pytest.raises(ml.TimeoutError):
            model.compute(X, timeout=0.3)
        assert model.lost is not None
        assert model.lost.reason == "timeout"


# The report.


def test_the_report_tells_the_time_of_partitions_that_ran(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name=LITTLE) as model:
        assert [item.run_seconds for item in report(model).partitions][:2] == [None, None]
        ends = time.monotonic() + SECONDS
        while report(model).partitions[0].run_seconds is None:
            check(model, SPLIT)
            assert time.monotonic() < ends, report(model)
        assert report(model).partitions[2].run_seconds is None
        assert all(device.type in TYPES for device in report(model).devices)


def test_the_devices_of_a_model_are_listed(service: Service) -> None:
    connection = service()
    with load(connection, SPLIT, accelerator_name=LITTLE) as model:
        assert set(model.isolation.devices) == {LITTLE, "reference", "xnnpack"}
        (row,) = [row for row in connection.models() if row.sha256 == model.report.sha256]
        assert row.isolation.devices == model.isolation.devices


def test_a_closed_model_has_no_report(service: Service) -> None:
    model = load(service(), SPLIT, accelerator_name=LITTLE)
    model.close()
    with pytest.raises(ml.InvalidStateError):
        model.delegation()


@pytest.mark.slow
def test_where_models_share_a_process_one_with_devices_has_its_own(service: Service) -> None:
    connection = service(isolation="origin")
    with (
        load(connection, SPLIT) as plain,
        load(connection, ["ADD"]) as neighbour,
        load(connection, SPLIT, accelerator_name=LITTLE) as model,
    ):
        assert plain.isolation.worker_pid == neighbour.isolation.worker_pid
        assert plain.isolation.shared
        assert model.isolation.worker_pid != plain.isolation.worker_pid
        assert not model.isolation.shared
        check(model, SPLIT)
        check(plain, SPLIT)


def test_relayed_models_have_devices_too(service: Service) -> None:
    with (
        ml.connect(service().address, relay=True) as connection,
        load(connection, SPLIT, accelerator_name=LITTLE) as model,
    ):
        check(model, SPLIT)
        assert on_device(model) == [3, 2]


def test_reset_keeps_the_devices(service: Service) -> None:
    with load(service(), SPLIT, accelerator_name=LITTLE) as model:
        check(model, SPLIT)
        model.reset()
        check(model, SPLIT, 7)
        assert on_device(model) == [3, 2]


def test_a_service_does_not_start_with_devices_that_cannot_be() -> None:
    with pytest.raises(ml.ConstraintError, match="is enabled twice"):
        ml.embed(devices=["openvino", "openvino"])
