"""Partitions of real interpreters, and what happens where a device does not do what it said."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import sleep
from typing import Any

import numpy as np
import pytest

from loader_service.devices.bridge import apply
from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.compiled import CompiledPlan, DeviceFailed
from loader_service.devices.cpu import CpuDevice
from loader_service.devices.device import (
    Compilation,
    DeadlineMissed,
    Device,
    DeviceError,
    Verdict,
)
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import Partition
from loader_service.devices.placed import PATIENCE, TELLS, PlacedModel
from loader_service.devices.plan import Plan, Wish, make_plan
from loader_service.devices.reading import read_view
from loader_service.runtime.engine import Placement
from loader_service.runtime.failures import LimitReached, ModelFailed, UnsupportedModel
from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from loader_service.writer.stateful import counter
from model_loader_wire.delegation import STEPS, Delegation
from model_loader_wire.device_options import DeviceOptions
from tests.devices.models import LENGTH, chain, expected
from tests.devices.numpy_device import NumpyDevice, NumpyExecutable
from tests.runtime.engines import NAMES, engine

SPLIT = ["ADD", "ADD", "MUL", "FLOOR", "ADD", "MUL"]
"""Three operators for the device, one for the CPU, two for the device."""
X = np.array([-2.25, 0, 1.5, 100], np.float32)


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> InterpreterRuntime:
    return engine(request.param)


class Case:
    """A model opened with devices, and each of its parts."""

    def __init__(
        self,
        runtime: InterpreterRuntime,
        operators: list[str] | bytes,
        *devices: Device,
        coarse: bool = False,
        **asked: Any,
    ) -> None:
        self.data = chain(operators) if isinstance(operators, list) else operators
        self.wish = Wish(DeviceOptions(**asked), coarse=coarse)
        self.view = read_view(self.data)
        self.cpus = [CpuDevice(name, runtime.library) for name in ("reference", "xnnpack")]
        self.plan: Plan = make_plan(self.view, [*devices, *self.cpus], self.wish)
        self.compiled = CompiledPlan(self.view, self.plan, apply)
        self.compiled.compile(self.wish, threads=1, seconds=5, cache=None)
        self.runtime = runtime
        self.fits = -1
        """So many interpreters, beside those that are opened anew; below zero: any number."""

    def open(self) -> PlacedModel:
        def opening(placement: Placement | None) -> InterpreterModel:
            if not self.fits:
                raise LimitReached("no room", "memory_bytes", 2, 1)
            self.fits -= 1
            return self.runtime.load(self.data, threads=1, memory_bytes=None, placement=placement)

        return PlacedModel(opening, self.compiled, named=self.wish.named, coarse=self.wish.coarse)


def run(model: PlacedModel, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    (view,) = model.prepare_inputs(0, [(LENGTH,)])
    assert view is not None
    view[:] = x.tobytes()
    model.invoke(0)
    (output,) = model.outputs(0)
    return np.frombuffer(bytes(output.data), np.float32)


def shares(model: PlacedModel) -> list[tuple[str, int]]:
    delegation = model.description.delegation
    assert delegation is not None
    return [(item.device, item.nodes) for item in delegation.partitions]


def steps(model: PlacedModel) -> str:
    delegation = model.description.delegation
    assert delegation is not None
    return "\n".join(delegation.steps)


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


class Forgetful(NumpyDevice):
    """Compiles, and can then prepare only so often."""

    prepares = 2

    def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
        executable = super().compile(partition, compilation)
        real = executable.prepare

        def prepare(shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
            self.prepared()
            return real(shapes)

        executable.prepare = prepare  # type: ignore[method-assign]
        return executable

    def prepared(self) -> None:
        if not self.prepares:
            raise DeviceError("it has forgotten")
        self.prepares -= 1


@pytest.mark.parametrize("coarse", [False, True])
def test_a_device_that_is_late_later_is_not_stood_in_for_either(
    runtime: InterpreterRuntime, coarse: bool
) -> None:
    class Late(Forgetful):
        def prepared(self) -> None:
            if not self.prepares:
                raise DeadlineMissed("time is over")
            self.prepares -= 1

    words = "^a device failed$" if coarse else "numpy could not prepare: time is over"
    model = Case(runtime, SPLIT, Late(), coarse=coarse, execution_preference="undefined").open()
    run(model)
    with pytest.raises(ModelFailed, match=words):
        model.reset()
    unready = Late()
    unready.prepares = 0
    with pytest.raises(ModelFailed, match=words):
        Case(runtime, SPLIT, unready, coarse=coarse, execution_preference="undefined").open()


def test_a_failed_run_is_answered_from_the_cpu(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice(failures=1)
    case = Case(runtime, SPLIT, device, execution_preference="undefined")
    model = case.open()
    for scale in (1, 2, 3):
        assert run(model, X * scale).tobytes() == expected(SPLIT, X * scale).tobytes()
    assert device.runs == 1 + 4
    assert "numpy failed in a run, the CPU answered" in steps(model)
    assert "NumPy is tired" in steps(model)
    assert shares(model)[0] == ("numpy", 3)


def test_a_device_that_goes_on_failing_is_left_out(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice(failures=-1)
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    for scale in range(PATIENCE + 2):
        assert run(model, X * scale).tobytes() == expected(SPLIT, X * scale).tobytes()
    assert device.runs == PATIENCE
    assert {name for name, _ in shares(model)} == {"xnnpack"}
    assert "numpy was left out from now on" in steps(model)
    model.reset()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert device.runs == PATIENCE


def test_only_the_device_that_fails_is_left_out(runtime: InterpreterRuntime) -> None:
    operators = ["ADD", "ADD", "NEG", "NEG", "ADD"]
    bad = NumpyDevice("bad", operators=frozenset({"NEG"}), failures=-1)
    good = NumpyDevice("good", operators=frozenset({"ADD"}))
    model = Case(runtime, operators, bad, good, execution_preference="undefined").open()
    for _ in range(PATIENCE + 1):
        assert run(model).tobytes() == expected(operators, X).tobytes()
    assert bad.runs == PATIENCE
    assert {name for name, _ in shares(model)} == {"good", "xnnpack"}


def test_failures_that_are_not_in_a_row_are_forgiven(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice()
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    for _ in range(PATIENCE + 1):
        device.failures = PATIENCE - 1
        for _ in range(PATIENCE):
            assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert shares(model)[0] == ("numpy", 3)


def test_the_cpus_interpreter_lives_no_longer_than_the_devices_fail(
    runtime: InterpreterRuntime,
) -> None:
    device = NumpyDevice(failures=PATIENCE - 1)
    case = Case(runtime, SPLIT, device, execution_preference="undefined")
    opened: list[weakref.ref[InterpreterModel]] = []

    def opening(placement: Placement | None) -> InterpreterModel:
        model = runtime.load(case.data, threads=1, memory_bytes=None, placement=placement)
        opened.append(weakref.ref(model))
        return model

    model = PlacedModel(opening, case.compiled, named=False)
    alive = []
    for _ in range(PATIENCE):
        assert run(model).tobytes() == expected(SPLIT, X).tobytes()
        alive.append([each() is not None for each in opened])
    assert alive == [[True, True]] * (PATIENCE - 1) + [[True, False]]


def test_changes_are_told_a_few_times_at_once_and_then_with_the_next_ping(
    runtime: InterpreterRuntime,
) -> None:
    device = NumpyDevice()
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    told: list[Delegation] = []
    model.tell = told.append
    run(model)
    assert [item.partitions[0].run_seconds is None for item in told] == [False]
    for number in range(100):
        device.failures = 1
        run(model, X * number)
        run(model)
    assert len(told) == TELLS
    model.tell_times()
    assert len(told) == TELLS + 1
    assert len(told[-1].steps) == STEPS
    model.tell_times()
    assert len(told) == TELLS + 1


def test_a_named_device_must_run(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice(failures=1)
    model = Case(runtime, SPLIT, device, accelerator_name="numpy").open()
    with pytest.raises(ModelFailed, match="numpy"):
        run(model)
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()


@pytest.mark.parametrize(
    ("coarse", "words"),
    [(False, "numpy could not run: NumPy is tired"), (True, "^a device failed$")],
)
def test_a_model_with_state_gets_no_second_answer(
    runtime: InterpreterRuntime, coarse: bool, words: str
) -> None:
    class Greedy(NumpyDevice):
        def supported_operations(self, model: ModelView) -> list[Verdict]:
            return [Verdict(node.operator == "ADD") for node in model.nodes]

    device = Greedy(failures=1)
    case = Case(runtime, counter(), device, coarse=coarse, execution_preference="undefined")
    assert not case.view.stateless
    model = case.open()
    (view,) = model.prepare_inputs(0, [(1,)])
    assert view is not None
    view[:] = np.ones(1, np.float32).tobytes()
    with pytest.raises(ModelFailed, match=words):
        model.invoke(0)


def test_a_steady_run_is_stood_in_for(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice()
    model = Case(runtime, SPLIT, device, execution_preference="undefined").open()
    run(model)
    steady = model.steady(0)
    assert steady is not None
    for failures, stood_in in ((0, False), (1, True)):
        (place,) = steady.inputs()
        place[:] = X * 5
        device.failures = failures
        steady.run()
        outputs = steady.outputs()
        assert (outputs is None) == stood_in
        (output,) = model.outputs(0)
        assert bytes(output.data) == expected(SPLIT, X * 5).tobytes()
    assert "the CPU answered" in steps(model)


def test_reset_opens_the_devices_anew(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice()
    case = Case(runtime, SPLIT, device, execution_preference="undefined")
    model = case.open()
    run(model)
    model.reset()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert device.runs == 4
    assert len(device.compilations) == 2


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


def test_a_device_that_fails_at_a_reset_is_left_out(runtime: InterpreterRuntime) -> None:
    model = Case(runtime, SPLIT, Forgetful(), execution_preference="undefined").open()
    run(model)
    model.reset()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert {name for name, _ in shares(model)} == {"xnnpack"}
    assert "numpy was left out, the CPU runs its part" in steps(model)


def test_a_named_device_must_be_reset(runtime: InterpreterRuntime) -> None:
    model = Case(runtime, SPLIT, Forgetful(), accelerator_name="numpy").open()
    with pytest.raises(ModelFailed, match="it has forgotten"):
        model.reset()
    # There is nothing to report of a model that is not open, and that ends nobody.
    told: list[Delegation] = []
    model.tell = told.append
    model._untold = True
    model.tell_times()
    assert told == []


@pytest.mark.parametrize("fits", [1, 2])
def test_devices_that_fail_are_left_out_where_memory_is_short(
    runtime: InterpreterRuntime, fits: int
) -> None:
    device = NumpyDevice(failures=-1)
    case = Case(runtime, SPLIT, device, execution_preference="undefined")
    case.fits = fits
    model = case.open()
    for scale in range(PATIENCE + 2):
        assert run(model, X * scale).tobytes() == expected(SPLIT, X * scale).tobytes()
    assert device.runs == (1 if fits == 1 else PATIENCE)
    assert {name for name, _ in shares(model)} == {"xnnpack"}


def test_the_others_are_left_out_too_where_they_do_not_fit_beside_the_answer(
    runtime: InterpreterRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = ["ADD", "ADD", "NEG", "NEG", "ADD"]
    bad = NumpyDevice("bad", operators=frozenset({"NEG"}), failures=-1)
    good = NumpyDevice("good", operators=frozenset({"ADD"}))
    model = Case(runtime, operators, bad, good, execution_preference="undefined").open()

    def reset(_: InterpreterModel) -> None:
        raise LimitReached("no room", "memory_bytes", 2, 1)

    monkeypatch.setattr(InterpreterModel, "reset", reset)
    for _ in range(PATIENCE + 1):
        assert run(model).tobytes() == expected(operators, X).tobytes()
    assert {name for name, _ in shares(model)} == {"xnnpack"}
    assert "good was left out, too: no room" in steps(model)


def test_shapes_that_the_cpu_does_not_take_either_cost_no_device(
    runtime: InterpreterRuntime,
) -> None:
    writer = ModelWriter()
    graph = writer.subgraph()
    one = graph.constant("one", np.ones(LENGTH, np.float32))
    tensors = [
        graph.tensor(name, TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, -1))
        for name in ("difference", "negative")
    ]
    x = graph.input("x", TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, -1))
    graph.operator(BuiltinOperator.SUB, [x, one], [tensors[0]])
    graph.operator(BuiltinOperator.NEG, [tensors[0]], [tensors[1]])
    graph.output(tensors[1])
    device = NumpyDevice(operators=frozenset({"NEG"}))
    model = Case(runtime, writer.write(), device, execution_preference="undefined").open()
    with pytest.raises(ModelFailed):
        model.prepare_inputs(0, [(1, LENGTH - 1)])
    (view,) = model.prepare_inputs(0, [(1, LENGTH)])
    assert view is not None
    view[:] = X.tobytes()
    model.invoke(0)
    assert bytes(model.outputs(0)[0].data) == (1 - X).tobytes()
    assert shares(model)[0] == ("numpy", 1)


def test_a_device_that_refused_a_shape_is_not_blamed_for_another_device(
    runtime: InterpreterRuntime,
) -> None:
    """A shape that the CPU does not take either, so that nobody was left out."""

    class Strict(NumpyDevice):
        def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
            executable = super().compile(partition, compilation)

            def prepare(shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
                if shapes[0][1] != LENGTH:
                    raise DeviceError("not that shape")
                return shapes

            executable.prepare = prepare  # type: ignore[method-assign]
            return executable

    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, -1))
    one = graph.constant("one", np.ones(LENGTH, np.float32))
    names = ("first", "between", "second", "y")
    first, between, second, y = (
        graph.tensor(name, TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, -1))
        for name in names
    )
    graph.operator(BuiltinOperator.ABS, [x], [first])
    graph.operator(BuiltinOperator.FLOOR, [first], [between])
    graph.operator(BuiltinOperator.NEG, [between], [second])
    graph.operator(BuiltinOperator.SUB, [second, one], [y])
    graph.output(y)
    bad = NumpyDevice("bad", operators=frozenset({"ABS"}), failures=-1)
    good = Strict("good", operators=frozenset({"NEG"}))
    model = Case(runtime, writer.write(), bad, good, execution_preference="undefined").open()
    for shape in ((1, LENGTH - 1), (1, LENGTH), (1, LENGTH), (1, LENGTH)):
        try:
            (view,) = model.prepare_inputs(0, [shape])
        except ModelFailed:
            assert shape == (1, LENGTH - 1)
            continue
        assert view is not None
        view[:] = np.zeros(shape, np.float32).tobytes()
        model.invoke(0)
    assert "bad was left out from now on" in steps(model)
    assert ("good", 1) in shares(model)


@pytest.mark.parametrize("wrong", [(3, LENGTH + 1), (3 * LENGTH,), ()])
@pytest.mark.parametrize("last", [False, True])
def test_a_wrong_size_for_other_shapes_is_a_failure_of_the_device(
    runtime: InterpreterRuntime, wrong: tuple[int, ...], last: bool
) -> None:
    class Liar(NumpyDevice):
        def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
            executable = super().compile(partition, compilation)

            def prepare(shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
                return shapes if shapes[0][0] == 1 else [wrong]

            executable.prepare = prepare  # type: ignore[method-assign]
            return executable

    writer = ModelWriter()
    graph = writer.subgraph()
    value = graph.input("x", TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, LENGTH))
    for name in ("ABS", "NEG") if last else ("NEG", "ABS"):
        result = graph.tensor(name, TensorType.FLOAT32, (1, LENGTH), shape_signature=(-1, LENGTH))
        graph.operator(BuiltinOperator[name], [value], [result])
        value = result
    graph.output(value)
    device = Liar(operators=frozenset({"NEG"}))
    model = Case(runtime, writer.write(), device, execution_preference="undefined").open()
    for rows in (1, 3):
        (view,) = model.prepare_inputs(0, [(rows, LENGTH)])
        assert view is not None
        view[:] = np.full((rows, LENGTH), 2, np.float32).tobytes()
        model.invoke(0)
        (output,) = model.outputs(0)
        found = np.frombuffer(bytes(output.data), np.float32)
        assert found.tolist() == [-2 if last else 2] * rows * LENGTH
    assert "numpy was left out" in steps(model)
    assert f"the shape {wrong}" in steps(model)


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
