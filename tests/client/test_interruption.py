"""Interruption: a broken-off call never gives a later call its answer."""

from __future__ import annotations

import random
import select
import socket
import threading
import time

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.data_types import DataType
from tests.client import workers
from tests.client.alarms import Interrupted, alarms, interrupted_when
from tests.client.bare_model import bare_model, echoing_process
from tests.client.conftest import Load
from tests.client.fake_service import echoing, tensor

HANG_SECONDS = 20.0


# A handler that raises inside some destructor is reported there, by Python, and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("elements", "interruptions", "longest"),
    [(4, 2000, 250e-6), (300_000, 400, 3e-3)],
    ids=["small", "larger than the socket's buffers"],
)
def test_storm_of_signals(elements: int, interruptions: int, longest: float) -> None:
    """Every answer that arrives is the answer to its own question."""
    chance = random.Random(7)
    interrupted = answered = wrong = number = 0
    description = echoing(tensor("x", DataType.INT64, (elements,)))
    with alarms() as set_alarm, echoing_process(description) as model:
        model.compute(np.zeros(elements, np.int64))
        while interrupted < interruptions:
            number += 1
            x = np.full(elements, number, np.int64)
            out = np.zeros(elements, np.int64) if number % 3 == 0 else None
            try:
                if number % 20:  # some are left alone, however slow the machine is
                    set_alarm(chance.uniform(1e-6, longest))
                answer = model.compute(x, out)
                set_alarm(0)
            except Interrupted:
                interrupted += 1
                continue
            answered += 1
            got = answer if out is None else out
            wrong += bool(got[0] != number or got[-1] != number)
        number += 1
        assert model.compute(np.full(elements, number, np.int64))[0] == number
        assert model.lost is None
    assert wrong == 0
    assert answered > interruptions / 50


def test_interrupted_call_is_drained_before_the_next() -> None:
    ours, theirs = socket.socketpair()
    gate, came = threading.Event(), threading.Event()
    frames = []

    def wait_first(channel: socket.socket, frame: workers.Frame) -> None:
        frames.append(frame)
        came.set()
        gate.wait(HANG_SECONDS)
        workers.echo(channel, frame)

    worker = threading.Thread(target=workers.serve, args=(theirs, wait_first), daemon=True)
    worker.start()
    model = bare_model(ours, echoing(tensor("x", DataType.INT64, (2,))))
    out = np.zeros(2, np.int64)
    with interrupted_when(came.wait):
        model.compute(np.array([1, 1]), out)
    gate.set()
    assert model.compute(np.array([2, 2])).tolist() == [2, 2]
    assert [frame.header.sequence for frame in frames] == [1, 2]
    # The first call's memory is its caller's again: the late answer did not land there.
    assert out.tolist() == [0, 0]


def test_waiting_for_an_interrupted_call_ends_with_the_callers_own_deadline() -> None:
    ours, theirs = socket.socketpair()
    gate, came = threading.Event(), threading.Event()

    def wait(channel: socket.socket, frame: workers.Frame) -> None:
        came.set()
        gate.wait(HANG_SECONDS)
        workers.echo(channel, frame)

    threading.Thread(target=workers.serve, args=(theirs, wait), daemon=True).start()
    model = bare_model(ours, echoing(tensor("x", DataType.INT64, (2,))))
    with interrupted_when(came.wait):
        model.compute(np.array([1, 1]))
    with pytest.raises(ml.TimeoutError, match="still usable"):
        model.compute(np.array([2, 2]), timeout=0.1)
    gate.set()
    assert model.lost is None
    assert model.compute(np.array([3, 3])).tolist() == [3, 3]


@pytest.mark.parametrize("elements", [2, 1 << 20])
def test_an_answer_that_came_in_time_is_not_late_because_nobody_looked(elements: int) -> None:
    ours, theirs = socket.socketpair()
    came, left = threading.Event(), threading.Event()

    def echo_when_nobody_looks(channel: socket.socket, frame: workers.Frame) -> None:
        came.set()
        left.wait(HANG_SECONDS)
        workers.echo(channel, frame)

    serving = threading.Thread(
        target=workers.serve, args=(theirs, echo_when_nobody_looks), daemon=True
    )
    serving.start()
    model = bare_model(ours, echoing(tensor("x", DataType.INT64, (elements,))))
    x = np.full(elements, 1)
    with interrupted_when(came.wait):
        model.compute(x, timeout=0.5)
    left.set()
    time.sleep(0.6)
    assert model.compute(np.full(elements, 2))[-1] == 2
    assert model.lost is None


def test_what_was_sent_by_half_has_its_whole_time_when_it_goes_on() -> None:
    ours, theirs = socket.socketpair()
    gate = threading.Event()

    def read_late(channel: socket.socket) -> None:
        gate.wait(HANG_SECONDS)
        # Longer than a reply may be late, but not than a computation may last.
        workers.serve(channel, workers.slow_echo(1.3))

    threading.Thread(target=read_late, args=(theirs,), daemon=True).start()
    elements = 1 << 20
    model = bare_model(ours, echoing(tensor("x", DataType.INT64, (elements,))))
    x = np.full(elements, 1)
    with interrupted_when(lambda: select.select([theirs], [], [], HANG_SECONDS)):
        model.compute(x, timeout=0.5)
    time.sleep(0.6)
    gate.set()
    with pytest.raises(ml.TimeoutError, match="still usable"):
        model.compute(np.full(elements, 2), timeout=0.2)
    assert model.compute(np.full(elements, 3))[-1] == 3
    assert model.lost is None


def test_end_is_noticed_behind_an_unread_reply() -> None:
    ours, theirs = socket.socketpair()
    model = bare_model(ours, echoing(tensor("x", DataType.INT64, (2,))))
    with interrupted_when(lambda: select.select([theirs], [], [], HANG_SECONDS)):
        model.compute(np.array([1, 1]))
    assert not model._core.channel.has_ended()
    workers.echo(theirs, workers.read_frame(theirs))
    assert not model._core.channel.has_ended()
    theirs.close()
    assert model._core.channel.has_ended()


def test_interrupted_load_withdraws_it(load: Load) -> None:
    began = threading.Event()

    class Slow:
        def read(self, size: int) -> bytes:
            began.set()
            time.sleep(5)
            return b""

    model = load()
    loader = ml.MLModelLoader(_context(model))
    started = time.monotonic()
    with interrupted_when(began.wait):
        loader.load(Slow())
    assert time.monotonic() - started < 4
    assert model.compute(np.zeros((2, 3), np.float32)).shape == (2, 3)


def _context(model: ml.MLModel) -> ml.MLContext:
    connection = ml.Connection(model._driver, model._core.session, None)
    return ml.create_context(connection=connection)
