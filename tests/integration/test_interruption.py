"""Every call ends in its own answer or a typed error, also when interrupted, late or forked."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import costly, small
from tests.shared_models import REPOSITORY
from tests.support.stopping import stopped

from .arrays import Array, inputs_of
from .forking_caller import CHILDREN

STORM_CALLS = 1500
CANCELLED_CALLS = 500
REPEATED_SECONDS = 0.01
HANG_SECONDS = 60.0
STEERED = 25
"""Of so many calls of a storm one surely has no answer when it is struck, and one is left alone."""


class Interrupted(Exception):
    """What the storm's handler raises, as KeyboardInterrupt is raised by Ctrl-C."""


class Storm:
    """A timer whose signal raises in this thread, at a random instant of a call."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._armed = False
        self.strikes = 0

    def strike(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: one that comes after its call is over does nothing.

        What is raised in a destructor, Python prints and forgets: there the next signal may do it.
        """
        while frame is not None and frame.f_code.co_name != "__del__":
            frame = frame.f_back
        if self._armed and frame is None:
            self._armed = False
            self.strikes += 1
            raise Interrupted

    def during(self, call: Callable[[], Array]) -> Array | None:
        """Strike within the next 0.4 ms, if `call` lasts so long; None if it was struck."""
        try:
            self._armed = True
            # Again and again: one that comes just before a wait begins does not end the wait.
            seconds = float(self._random.uniform(2e-5, 4e-4))
            signal.setitimer(signal.ITIMER_REAL, seconds, REPEATED_SECONDS)
            answer = call()
            self._armed = False
        except Interrupted:
            return None
        return answer


@pytest.fixture
def storm() -> Iterator[Storm]:
    """A storm; the handler of SIGALRM that was there before comes back.

    No garbage of other tests is collected meanwhile, where what is raised would be forgotten.
    """
    made = Storm(7)
    gc.collect()
    gc.disable()
    before = signal.signal(signal.SIGALRM, made.strike)
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


@pytest.mark.timeout(120, method="thread")
def test_a_storm_of_interrupts_never_gives_another_calls_answer(
    road_loader: ml.MLModelLoader, storm: Storm
) -> None:
    """Interrupted at random instants, each call still answers for itself or not at all."""
    answered = 0
    with road_loader.load(small.double(TensorType.INT32, (2048,))) as model:
        for number in range(STORM_CALLS):
            call = partial(model.compute, np.full(2048, number, np.int32))
            if number % STEERED == 0:
                with stopped(model.isolation.worker_pid):
                    assert storm.during(call) is None
                continue
            answer = call() if number % STEERED == 1 else storm.during(call)
            if answer is not None:
                answered += 1
                assert (answer == number * 2).all()
        assert model.lost is None
        assert (model.compute(np.full(2048, 5, np.int32)) == 10).all()
    assert min(storm.strikes, answered) >= STORM_CALLS // STEERED
    assert answered + storm.strikes >= STORM_CALLS


def call_until_ctrl_c(model: ml.MLModel, inputs: dict[str, Array]) -> None:
    """Call until something is raised, as by the Ctrl-C that soon comes."""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        model.compute(inputs)


def test_ctrl_c_leaves_the_model_usable(loader: ml.MLModelLoader) -> None:
    with loader.load(costly.work()) as model:
        inputs = inputs_of(model)
        expected = [value.tobytes() for value in model.compute(inputs).values()]
        with pytest.raises(KeyboardInterrupt):
            call_until_ctrl_c(model, inputs)
        assert model.lost is None
        assert [value.tobytes() for value in model.compute(inputs).values()] == expected


def test_a_timeout_ends_the_work_and_says_so(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.add()) as other, road_loader.load(costly.endless()) as model:
        pid = model.isolation.worker_pid
        with pytest.raises(ml.TimeoutError):
            model.compute(inputs_of(model), timeout=0.3)
        assert model.lost is not None
        assert model.lost.reason == "timeout"
        assert not os.path.exists(f"/proc/{pid}")
        assert other.compute(np.array([1], np.float32)) == 2


def test_many_threads_share_a_model(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.double(TensorType.INT32)) as model:

        def call(number: int) -> bool:
            answer = model.compute(np.full(4, number, np.int32))
            return bool((answer == 2 * number).all())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(400)))


@pytest.mark.parametrize("child_does", CHILDREN)
def test_a_forked_child_has_nothing_of_the_parents(
    connection: ml.Connection, child_does: str
) -> None:
    """It may not use the parent's model, and can have a service of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.forking_caller", connection.address, child_does],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("relay", [False, True])
def test_the_asynchronous_face(connection: ml.Connection, relay: bool) -> None:
    async def use() -> None:
        async with (
            await ml.aio.connect(connection.address, relay=relay) as own,
            await ml.aio.create_context(connection=own) as context,
        ):
            loader = ml.aio.MLModelLoader(context)
            model = await loader.load(small.double(TensorType.INT32))
            answers = await asyncio.gather(
                *(model.compute(np.full(4, number, np.int32)) for number in range(50))
            )
            for number, answer in enumerate(answers):
                assert (answer == 2 * number).all()
            await model.close()

    asyncio.run(use())


def test_cancelled_tasks_never_give_another_calls_answer(connection: ml.Connection) -> None:
    async def use() -> tuple[int, int]:
        random = np.random.default_rng(3)
        cancelled = answered = 0
        async with (
            await ml.aio.connect(connection.address) as own,
            await ml.aio.create_context(connection=own) as context,
        ):
            model = await ml.aio.MLModelLoader(context).load(
                small.double(TensorType.INT32, (2048,))
            )
            for number in range(CANCELLED_CALLS):
                call = asyncio.ensure_future(model.compute(np.full(2048, number, np.int32)))
                if number % STEERED == 0:
                    with stopped(model.isolation.worker_pid):
                        await asyncio.sleep(0.001)
                        assert call.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await call
                elif number % STEERED != 1:
                    await asyncio.sleep(float(random.uniform(0, 3e-4)))
                    call.cancel()
                try:
                    answer = await call
                except asyncio.CancelledError:
                    cancelled += 1
                    continue
                answered += 1
                assert (answer == 2 * number).all()
            assert model.lost is None
            assert ((await model.compute(np.full(2048, 9, np.int32))) == 18).all()
        return cancelled, answered

    cancelled, answered = asyncio.run(use())
    assert min(cancelled, answered) >= CANCELLED_CALLS // STEERED
    assert cancelled + answered == CANCELLED_CALLS


def test_an_asynchronous_timeout_loses_the_model(connection: ml.Connection) -> None:
    async def use() -> None:
        async with (
            await ml.aio.connect(connection.address) as own,
            await ml.aio.create_context(connection=own) as context,
        ):
            model = await ml.aio.MLModelLoader(context).load(costly.endless())
            with pytest.raises(ml.TimeoutError):
                await model.compute(inputs_of(model), timeout=0.3)  # type: ignore[arg-type]
            lost = model.lost
            assert lost is not None
            assert lost.reason == "timeout"

    asyncio.run(use())
