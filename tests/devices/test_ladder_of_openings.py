"""What happens where a device fails when its model is opened anew, or prepared for other shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loader_service.devices.device import Compilation, DeadlineMissed, DeviceError
from loader_service.devices.partition import Partition
from loader_service.devices.placed import PATIENCE
from loader_service.runtime.failures import LimitReached, ModelFailed
from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from model_loader_wire.delegation import Delegation
from tests.devices.ladder import SPLIT, Case, Forgetful, X, run, shares, steps
from tests.devices.models import LENGTH, expected
from tests.devices.numpy_device import NumpyDevice, NumpyExecutable


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


def test_reset_opens_the_devices_anew(runtime: InterpreterRuntime) -> None:
    device = NumpyDevice()
    case = Case(runtime, SPLIT, device, execution_preference="undefined")
    model = case.open()
    run(model)
    model.reset()
    assert run(model).tobytes() == expected(SPLIT, X).tobytes()
    assert device.runs == 4
    assert len(device.compilations) == 2


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
