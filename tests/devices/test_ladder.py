"""Partitions of real interpreters, and devices that do not compile what they said they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import sleep
from typing import Any

import numpy as np
import pytest

from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.compiled import DeviceFailed
from loader_service.devices.cpu import CpuDevice
from loader_service.devices.device import DeadlineMissed, DeviceError, Verdict
from loader_service.devices.plan import Wish, make_plan
from loader_service.devices.reading import read_view
from loader_service.runtime.failures import ModelFailed, UnsupportedModel
from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from model_loader_wire.device_options import DeviceOptions
from tests.devices.ladder import SPLIT, Case, Forgetful, X, run, shares, steps
from tests.devices.models import LENGTH, chain, expected
from tests.devices.numpy_device import NumpyDevice


def test_partitions_run_on_the_device_and_the_rest_on_the_cpu(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice()
    model = Case(runtime, SPLIT, device, execution_preference="fast_single_answer").open()
    for scale in (1, -3):
        assert run(model, X * scale).tobytes() == expected(SPLIT, X * scale).tobytes()
    assert device.runs == 4
    report = model.description.delegation
    assert report is not None
    assert shares(model) == [("numpy", 3), ("numpy", 2), ("xnnpack", 1)]
    assert report.partitions[0].operators == {"ADD": 2, "MUL": 1}
    assert report.partitions[0].run_seconds is not None
    assert [(item.operator, item.reason) for item in report.reasons] == [
        ("FLOOR", "not in NumPy's set")
    ]
    assert model.description.kernels == "xnnpack"


def test_the_devices_answer_is_the_one_that_counts(runtime: InterpreterRuntime) -> None:
    model = Case(runtime, SPLIT, NumpyDevice(adds=8), execution_preference="undefined").open()
    assert run(model).tobytes() != expected(SPLIT, X).tobytes()


def cannot_say(_: Sequence[Verdict]) -> Sequence[Verdict]:
    raise DeviceError("it cannot say")


@pytest.mark.parametrize(
    ("verdicts", "words"), [(cannot_say, "it cannot say"), (lambda true: true[1:], "5 came for 6")]
)
def test_a_device_without_verdicts_is_left_out_unless_it_was_named(
    runtime: InterpreterRuntime,
    verdicts: Callable[[Sequence[Verdict]], Sequence[Verdict]],
    words: str,
) -> None:
    device = NumpyDevice(verdicts=verdicts)
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert shares(model) == [("xnnpack", 6)]
    assert f"numpy was left out, it gave no verdicts: {words}" in steps(model)
    with pytest.raises(UnsupportedModel, match=f"numpy gave no verdicts: {words}"):
        Case(runtime, SPLIT, device, accelerator_name="numpy")


@pytest.mark.parametrize("disallowed", [True, False])
def test_the_reference_device_is_compared_if_it_is_not_disallowed(
    runtime: InterpreterRuntime, disallowed: bool
) -> None:
    # As slow as the built-in kernels, which come first of equals, being the CPU's.
    capabilities = Capabilities(Performance(1, 1), {}, partition_overhead=-1)
    device, reference = (
        NumpyDevice(capabilities=capabilities),
        CpuDevice("reference", runtime.library),
    )
    wish = Wish(DeviceOptions(disallow_nnapi_cpu=disallowed))
    plan = make_plan(read_view(chain(SPLIT)), [device, reference], wish)
    assert [item.name for item in plan.asked] == ["numpy", "reference"][: 1 if disallowed else 2]
    assert len(plan.planned) == (2 if disallowed else 0)


def test_a_refused_partition_goes_to_the_cpu(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice(refuses=lambda partition: len(partition.nodes) == 3)
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert shares(model)[0] == ("numpy", 2)
    assert sum(nodes for name, nodes in shares(model) if name == "xnnpack") == 4
    assert "numpy did not compile 3 operators, the CPU runs them: too hard" in steps(model)


def test_a_device_is_given_no_more_partitions_than_it_takes(runtime: InterpreterRuntime) -> None:
    operators = ["ADD", "FLOOR", "ADD", "ADD", "FLOOR", "ADD", "FLOOR", "ADD"]
    device = NumpyDevice(
        capabilities=Capabilities(Performance(0.1, 0.1), {}, most_partitions=2),
    )
    case = Case(
        runtime, operators, device, accelerator_name="numpy", max_number_delegated_partitions=0
    )
    model = case.open()
    assert run(model).tobytes() == expected(operators, X).tobytes()
    assert shares(model)[:2] == [("numpy", 1), ("numpy", 2)]
    assert [(item.operator, item.count, item.reason) for item in case.plan.reasons] == [
        ("FLOOR", 3, "not in NumPy's set"),
        ("ADD", 2, "not among the 2 largest partitions, and it takes no more"),
    ]


def test_a_named_device_must_compile(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice(refuses=lambda _: True)
    with pytest.raises(DeviceFailed, match="too hard for NumPy"):
        Case(runtime, SPLIT, device, accelerator_name="numpy")


@pytest.mark.parametrize(
    ("coarse", "words"), [(False, "numpy was too late: time is over"), (True, "^a device failed$")]
)
def test_a_compilation_that_is_late_is_tried_nowhere_else(
    runtime: InterpreterRuntime, coarse: bool, words: str
) -> None:
    class Late(NumpyDevice):
        def compile(self, partition: Any, compilation: Any) -> Any:
            assert compilation.deadline is not None
            raise DeadlineMissed("time is over")

    with pytest.raises(DeviceFailed, match=words):
        Case(runtime, SPLIT, Late(), coarse=coarse, execution_preference="undefined")


def test_what_is_compiled_when_the_interpreter_is_prepared_counts(
    runtime: InterpreterRuntime,
) -> None:
    class Slow(Forgetful):
        def prepared(self) -> None:
            sleep(0.05)

    model = Case(runtime, SPLIT, Slow(), accelerator_name="numpy").open()
    report = model.description.delegation
    assert report is not None
    assert min(part.compile_seconds for part in report.partitions[:2]) >= 0.05


@pytest.mark.parametrize("alone", [True, False])
def test_of_a_model_whose_primary_subgraph_no_delegate_gets_a_device_gets_nothing(
    runtime: InterpreterRuntime, alone: bool
) -> None:
    """By its name it is for validation: the first subgraph that a delegate gets is another."""
    writer = ModelWriter()
    for number, name in enumerate(["VALIDATION:main"] if alone else ["VALIDATION:main", "other"]):
        graph = writer.subgraph(name)
        x = graph.input("x", TensorType.FLOAT32, (LENGTH,))
        addend = graph.constant("addend", np.full(LENGTH, 10.0**number, np.float32))
        y = graph.tensor("y", TensorType.FLOAT32, (LENGTH,))
        graph.operator(BuiltinOperator.ADD, [x, addend], [y])
        graph.output(y)
        writer.signature(f"adds_{number}", graph, {"x": x}, {"y": y})
    device = NumpyDevice()
    model = Case(runtime, writer.write(), device, execution_preference="undefined").open()
    assert {name for name, _ in shares(model)} == {"reference"}
    for signature, description in enumerate(model.description.signatures):
        added = 10 if description.name == "adds_1" else 1
        (view,) = model.prepare_inputs(signature, [(LENGTH,)])
        assert view is not None
        view[:] = X.tobytes()
        model.invoke(signature)
        assert bytes(model.outputs(signature)[0].data) == (X + np.float32(added)).tobytes()
    assert device.runs == 0
    with pytest.raises(ModelFailed, match=r"primary subgraph|gives it no operators"):
        Case(runtime, writer.write(), device, accelerator_name="numpy").open()


def test_the_reference_device_runs_the_built_in_kernels(runtime: InterpreterRuntime) -> None:
    case = Case(runtime, SPLIT, accelerator_name="reference")
    assert case.plan.kernels is Kernels.BUILTIN
    model = case.open()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert model.description.kernels == "builtin"
    assert shares(model) == [("reference", len(SPLIT))]


def test_the_xnnpack_device_runs_what_xnnpack_takes(runtime: InterpreterRuntime) -> None:
    model = Case(runtime, SPLIT, accelerator_name="xnnpack").open()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert shares(model) == [("xnnpack", len(SPLIT))]


def test_a_missing_device_is_an_error_if_it_was_named(runtime: InterpreterRuntime) -> None:
    with pytest.raises(UnsupportedModel, match="no device 'coral'"):
        Case(runtime, SPLIT, NumpyDevice(), accelerator_name="coral")


def test_a_device_can_be_named_by_its_kind(runtime: InterpreterRuntime) -> None:
    one, two = NumpyDevice("numpy:0"), NumpyDevice("numpy:1")
    for name, used in (("numpy", one), ("numpy:1", two)):
        case = Case(runtime, SPLIT, one, two, accelerator_name=name)
        assert {item.device.name for item in case.compiled.partitions} == {used.name}


def test_no_gpu_is_no_failure(runtime: InterpreterRuntime) -> None:
    data = read_view(chain(SPLIT))
    cpus = [CpuDevice(name, runtime.library) for name in ("reference", "xnnpack")]
    wish = Wish(DeviceOptions(), "gpu")
    assert not make_plan(data, [NumpyDevice(), *cpus], wish).planned
    gpu = replace(NumpyDevice("gpu"), type=NumpyDevice.type.GPU)
    assert len(make_plan(data, [NumpyDevice(), gpu, *cpus], wish).planned) == 2
