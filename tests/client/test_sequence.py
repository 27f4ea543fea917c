"""``compute_many``: answers in order, the next request under way, and nothing lost to errors."""

from __future__ import annotations

import gc
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.causes import Cause
from model_loader_wire.data_types import DataType
from tests.client import workers
from tests.client.alarms import Interrupted, alarms
from tests.client.bare_model import bare_model, echoing_process
from tests.client.fake_service import echoing, tensor

HANG_SECONDS = 20
CLIENT = str(Path(ml.__file__).parent)


def model_with(behave: workers.Behaviour, elements: int = 2) -> ml.MLModel:
    """Give a model of int64 vectors whose worker behaves so."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=workers.serve, args=(theirs, behave), daemon=True).start()
    return bare_model(ours, echoing(tensor("x", DataType.INT64, (elements,))))


def vectors(elements: int, *numbers: int) -> list[np.ndarray[Any, Any]]:
    """Give an input for each number."""
    return [np.full(elements, number, np.int64) for number in numbers]


def firsts(answers: Iterator[Any]) -> list[int]:
    """Give the number of each answer."""
    return [int(answer[0]) for answer in answers]


@pytest.mark.parametrize("elements", [2, 1000, 75_000, 1_000_000])
def test_answers_come_in_order(elements: int) -> None:
    """Also where neither requests nor answers fit what a socket holds."""
    with echoing_process(echoing(tensor("x", DataType.INT64, (elements,)))) as model:
        for _ in range(2):
            answers = list(model.compute_many(vectors(elements, *range(7))))
            assert [(int(answer[0]), int(answer[-1])) for answer in answers] == [
                (number, number) for number in range(7)
            ]
        assert list(model.compute_many([])) == []
        assert firsts(model.compute_many(vectors(elements, 5))) == [5]


def test_the_next_request_is_there_before_the_answer_is_sent() -> None:
    waiting: list[bool] = []

    def look(channel: socket.socket, frame: workers.Frame) -> None:
        readable, _, _ = select.select([channel], [], [], HANG_SECONDS if not waiting else 0.0)
        waiting.append(bool(readable))
        workers.echo(channel, frame)

    assert firsts(model_with(look).compute_many(vectors(2, 1, 2))) == [1, 2]
    assert waiting == [True, False]


def test_inputs_are_read_one_ahead() -> None:
    taken = []

    def inputs() -> Iterator[Any]:
        for number in count():
            taken.append(number)
            yield np.full(2, number, np.int64)

    answers = model_with(workers.echo).compute_many(inputs())
    assert taken == []
    assert next(answers)[0] == 0
    assert taken == [0, 1]
    assert next(answers)[0] == 1
    assert taken == [0, 1, 2]


def test_other_calls_take_turns_with_the_answers() -> None:
    model = model_with(workers.echo)
    got = []
    for answer in model.compute_many(vectors(2, *range(10))):
        got.append(int(answer[0]))
        assert model.compute(np.full(2, 70 + got[-1], np.int64))[0] == 70 + got[-1]
        if got[-1] == 4:
            model.reset()
            assert firsts(model.compute_many(vectors(2, 8, 9))) == [8, 9]
    assert got == list(range(10))


def test_a_sequence_may_rest_longer_than_its_deadline() -> None:
    model = model_with(workers.echo)
    answers = model.compute_many(vectors(2, 1, 2, 3), timeout=1)
    assert next(answers)[0] == 1
    time.sleep(1.1)
    assert model.compute(vectors(2, 9)[0])[0] == 9
    assert firsts(answers) == [2, 3]
    assert model.lost is None


def test_a_sequence_that_is_left_costs_nobody_an_answer() -> None:
    model = model_with(workers.echo, 100_000)
    for start in range(0, 100, 10):
        for answer in model.compute_many(vectors(100_000, *range(start, start + 5))):
            assert answer[0] == start
            break
        assert model.compute(np.full(100_000, start + 7, np.int64))[-1] == start + 7
    assert model.lost is None


def test_wrong_input_is_told_in_its_turn() -> None:
    answers = model_with(workers.echo).compute_many([*vectors(2, 1, 2), np.zeros(3), np.zeros(3)])
    assert next(answers)[0] == 1
    assert next(answers)[0] == 2
    with pytest.raises(ml.DataError):
        next(answers)
    assert list(answers) == []


def test_failure_ends_the_sequence_and_not_the_model() -> None:
    def fail_second(channel: socket.socket, frame: workers.Frame) -> None:
        if frame.payload[0][0] == 2:
            workers.fail(Cause.FAILED)(channel, frame)
        else:
            workers.echo(channel, frame)

    model = model_with(fail_second)
    answers = model.compute_many(vectors(2, 1, 2, 3, 4))
    assert next(answers)[0] == 1
    with pytest.raises(ml.OperationError):
        next(answers)
    assert list(answers) == []
    assert firsts(model.compute_many(vectors(2, 5, 6))) == [5, 6]


def test_reply_with_more_than_it_should_have_loses_the_model() -> None:
    def babble(channel: socket.socket, frame: workers.Frame) -> None:
        data = workers.answer_bytes(frame.header.sequence, frame.entries, frame.payload)
        channel.sendall(data + b"x")

    model = model_with(babble)
    with pytest.raises(ml.OperationError, match="protocol"):
        list(model.compute_many(vectors(2, 1, 2, 3)))
    assert model.lost is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("elements", "interruptions", "longest"), [(4, 1000, 500e-6), (300_000, 150, 25e-3)]
)
def test_storm_of_signals(elements: int, interruptions: int, longest: float) -> None:
    """Every answer that arrives is the answer to its own question."""
    chance = random.Random(7)
    interrupted = answered = wrong = number = turns = 0
    description = echoing(tensor("x", DataType.INT64, (elements,)))
    with alarms() as set_alarm, echoing_process(description) as model:
        while interrupted < interruptions:
            turns += 1
            inputs = vectors(elements, number, number + 1, number + 2)
            try:
                if turns % 20:  # some are left alone, however slow the machine is
                    set_alarm(chance.uniform(1e-6, longest))
                for answer in model.compute_many(inputs):
                    answered += 1
                    wrong += bool(answer[0] != number or answer[-1] != number)
                    number += 1
                set_alarm(0)
            except Interrupted:
                interrupted += 1
            number += 3
        assert firsts(model.compute_many(vectors(elements, 1, 2))) == [1, 2]
        assert model.lost is None
    assert wrong == 0
    assert answered > interruptions / 50


def interrupt_at_line(number: int) -> Callable[[FrameType, str, Any], Any]:
    """Make a trace function that raises at the client's line of that number, counted as they run.

    Not in ``exclusive``: its lock is given back where no signal is looked at, which this cannot do.
    """
    left = number

    def at_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                raise Interrupted
        return at_line

    def at_call(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        ours = code.co_filename.startswith(CLIENT) and code.co_name != "exclusive"
        return at_line if ours else None

    return at_call


@pytest.fixture
def no_collector() -> Iterator[None]:
    """No garbage of other tests is finalized, where an interruption would be swallowed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_after_an_interruption_at_any_line_nothing_is_wanted() -> None:
    usual = sys.gettrace()
    for number in range(1, 10_000):
        model = model_with(workers.echo)
        answers = model.compute_many(vectors(2, 1, 2))
        sys.settrace(interrupt_at_line(number))
        try:
            assert firsts(answers) == [1, 2]
            break
        except Interrupted:
            pass
        finally:
            sys.settrace(usual)
        assert not [left for left, _ in model._core._pending if left.is_wanted], f"line {number}"
        assert model.compute(vectors(2, 9)[0])[0] == 9
        assert not model._core._pending
        assert model.lost is None
        model._core.channel.close()
    assert number > 300
