"""What happens where a device fails in a run, or runs late."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from loader_service.devices.device import Verdict
from loader_service.devices.model_view import ModelView
from loader_service.devices.placed import PATIENCE, TELLS, PlacedModel
from loader_service.runtime.engine import Placement
from loader_service.runtime.failures import ModelFailed
from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from loader_service.writer.stateful import counter
from model_loader_wire.delegation import STEPS, Delegation
from tests.devices.ladder import SPLIT, Case, X, run, shares, steps
from tests.devices.models import expected
from tests.devices.numpy_device import NumpyDevice


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
