"""Models that are parked again and again while programs compute: no answer is lost or another's."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from tests.support.raw_client import HANG_SECONDS, Service

pytestmark = pytest.mark.slow

CALLERS = 4
CALLS = 60
"""Of each caller on each road."""
LITTLE, LARGE = 4, 600_000
"""Elements of an input: the larger one, of 2.4 megabytes, is more than a channel holds."""
LOOK_SECONDS = 0.25
"""A worker without a call looks so often whether it is to be parked: calls come at that moment."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A service that parks whatever it can at each look."""
    settings: dict[str, Any] = {"ping_seconds": 0.02, "keep_alive_seconds": 0.01}
    with Service({"models_per_origin": 64, "processes": 64}, **settings) as service:
        yield f"unix:{service.directory}"


def double(elements: int) -> bytes:
    """A model that doubles so many integers."""
    return small.double(TensorType.INT32, (elements,))


def values(number: int, elements: int) -> np.ndarray[Any, Any]:
    """An input of its own for each call."""
    return np.arange(number, number + elements, dtype=np.int32)


def pause(source: random.Random) -> float:
    """Choose when the next call comes: most often about when the model is being parked."""
    return source.choice((0.0, LOOK_SECONDS + source.uniform(-0.02, 0.06)))


def wait_until_parked(connection: ml.Connection) -> None:
    """Wait until no model of the user's has a process."""
    end = time.monotonic() + HANG_SECONDS
    while any(row.worker_pid for row in connection.models()):
        assert time.monotonic() < end, "not parked"
        time.sleep(0.02)


def together(work: Callable[[int], None]) -> None:
    """Do it in some threads at a time; raises what the first of them that fails has raised."""
    faults: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


@pytest.mark.parametrize("relay", [False, True])
def test_blocking_callers_get_their_own_answers(address: str, relay: bool) -> None:
    def work(number: int) -> None:
        source = random.Random(number)
        elements = (LITTLE, LARGE)[number % 2]
        with (
            ml.connect(address, relay=relay) as connection,
            ml.create_context(connection=connection) as context,
        ):
            model = ml.MLModelLoader(context).load(double(elements))
            for call in range(CALLS):
                x = values(1000 * number + call, elements)
                np.testing.assert_array_equal(model.compute(x), 2 * x)
                time.sleep(pause(source))
            assert model.lost is None

    together(work)


@pytest.mark.parametrize("relay", [False, True])
def test_asynchronous_callers_get_their_own_answers(address: str, relay: bool) -> None:
    async def work(number: int) -> None:
        source = random.Random(number)
        elements = (LITTLE, LARGE)[number % 2]
        async with (
            await ml.aio.connect(address, relay=relay) as connection,
            await ml.aio.create_context(connection=connection) as context,
        ):
            model = await ml.aio.MLModelLoader(context).load(double(elements))
            for call in range(CALLS):
                x = values(1000 * number + call, elements)
                np.testing.assert_array_equal(await model.compute(x), 2 * x)
                await asyncio.sleep(pause(source))

    async def work_together() -> None:
        await asyncio.gather(*map(work, range(CALLERS)))

    asyncio.run(work_together())


@pytest.mark.parametrize("relay", [False, True])
def test_many_calls_at_a_time_are_answered_in_order(address: str, relay: bool) -> None:
    def work(number: int) -> None:
        source = random.Random(number)
        elements = (LITTLE, LARGE)[number % 2]
        with (
            ml.connect(address, relay=relay) as connection,
            ml.create_context(connection=connection) as context,
        ):
            model = ml.MLModelLoader(context).load(double(elements))
            for _ in range(CALLS // 3):
                inputs = [values(call, elements) for call in range(3)]
                for x, answer in zip(inputs, model.compute_many(inputs), strict=True):
                    np.testing.assert_array_equal(answer, 2 * x)
                time.sleep(pause(source))

    together(work)


@pytest.mark.parametrize("relay", [False, True])
def test_a_model_comes_back_with_its_signatures_and_resets(address: str, relay: bool) -> None:
    with (
        ml.connect(address, relay=relay) as connection,
        ml.create_context(connection=connection) as context,
    ):
        model = ml.MLModelLoader(context).load(small.two_signatures())
        a, b = np.array([5, 7], np.float32), np.array([2, 3], np.float32)
        for _ in range(2):
            wait_until_parked(connection)
            total = model.compute({"a": a, "b": b}, signature="add")
            np.testing.assert_array_equal(total["result"], a + b)
            wait_until_parked(connection)
            difference = model.compute({"a": a, "b": b}, signature="subtract")
            np.testing.assert_array_equal(difference["result"], a - b)
            wait_until_parked(connection)
            model.reset()
        assert model.lost is None
        wait_until_parked(connection)
        model.close()
        assert not connection.models()
