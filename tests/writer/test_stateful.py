"""The stateful models remember what they say, on both runtimes."""

from __future__ import annotations

import numpy as np

from loader_service.writer import stateful

from .running import Runtime, call


def test_the_counter_sums_all_calls(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(stateful.counter())
    assert [call(interpreter, [x])[0].tolist() for x in (2, 3, 5)] == [[2], [5], [10]]


def test_the_counter_begins_anew_in_a_new_interpreter(runtime: Runtime) -> None:
    for _ in range(2):
        assert runtime.run(stateful.counter(), [7])[0].tolist() == [7]


def test_both_signatures_of_the_counter_share_one_sum(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(stateful.counter())
    add, read = interpreter.get_signature_runner("add"), interpreter.get_signature_runner("read")
    assert read()["value"].tolist() == [0]
    assert add(x=np.array([4], np.float32))["y"].tolist() == [4]
    assert add(x=np.array([5], np.float32))["y"].tolist() == [9]
    assert read()["value"].tolist() == [9]


def test_the_running_sum_remembers_the_last_calls(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(stateful.running_sum(3))
    assert [float(call(interpreter, [[x]])[0][0, 0]) for x in (1, 2, 4, 8, 16)] == [1, 3, 7, 14, 28]
