"""The asynchronous face: the same results, and cancellation that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from tests.client import workers
from tests.client.conftest import put
from tests.client.fake_service import FakeService, echoing, tensor

X = np.ones((2, 3), np.float32)
Test = Callable[[ml.aio.MLModelLoader], Awaitable[None]]


def with_loader(service: FakeService, test: Test, relay: bool = False) -> None:
    """Run a test with a loader on a loop of its own."""

    async def main() -> None:
        async with (
            await ml.aio.connect(service.directory, relay=relay) as connection,
            await ml.aio.create_context(connection=connection) as context,
            ml.aio.MLModelLoader(context) as loader,
        ):
            await test(loader)

    run(main())


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on a new loop; a callback's failure is the test's."""
    faults: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        await asyncio.wait_for(main, 30)

    asyncio.run(watched())
    assert faults == []


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
def test_compute_and_reset(service: FakeService, relay: bool) -> None:
    content = put(service, echoing(tensor("x", DataType.FLOAT32, (None, 3))))

    async def test(loader: ml.aio.MLModelLoader) -> None:
        async with await loader.load(content) as model:
            for rows in (1, 4, 100_000):
                x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
                np.testing.assert_array_equal(await model.compute(x), x)
                out = np.zeros_like(x)
                assert await model.compute({"x": x}, out) is None
                np.testing.assert_array_equal(out, x)
            await model.reset()
            assert model.inputs() == (ml.MLTensorInfo("x", "float32", (None, 3)),)
            assert model.lost is None
            with pytest.raises(ml.DataError):
                await model.compute(x.astype(np.float64))
        with pytest.raises(ml.InvalidStateError, match="closed"):
            await model.compute(x)
        assert (await loader._context.formats())[0].name == "tflite"

    with_loader(service, test, relay)


def test_storm_of_cancellations(service: FakeService) -> None:
    """Every answer that arrives is the answer to its own question."""
    elements = 50_000  # larger than the socket's buffers
    content = put(service, echoing(tensor("x", DataType.INT64, (elements,))))
    chance = random.Random(5)
    counts = {"answered": 0, "cancelled": 0, "wrong": 0}

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)
        for number in range(600):
            x = np.full(elements, number)
            out = np.zeros(elements, np.int64) if number % 2 else None
            task = asyncio.create_task(model.compute(x, out))
            if number % 10 != 0:
                # At its first turn no call has an answer.
                await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0005, 0.002]))
                task.cancel()
            try:
                answer = await task
            except asyncio.CancelledError:
                counts["cancelled"] += 1
                x[:] = -1  # the caller's memory is the caller's again
                continue
            counts["answered"] += 1
            got = answer if out is None else out
            counts["wrong"] += int(got[0] != number or got[-1] != number)
        assert (await model.compute(np.full(elements, 7)))[-1] == 7
        assert model.lost is None

    with_loader(service, test)
    assert counts["wrong"] == 0
    assert counts["cancelled"] > 50
    assert counts["answered"] >= 60


def test_cancelled_call_ends_at_once(service: FakeService) -> None:
    gate = threading.Event()
    seen: list[int] = []

    def wait(channel: Any, frame: workers.Frame) -> None:
        seen.append(frame.header.sequence)
        if len(seen) == 1:
            gate.wait(10)
        workers.echo(channel, frame)

    content = put(service, None, wait)

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)
        out = np.zeros((2, 3), np.float32)
        started = time.monotonic()

        async def pass_when_seen(deadline: asyncio.Timeout) -> None:
            while not seen:
                await asyncio.sleep(0.001)
            deadline.reschedule(asyncio.get_running_loop().time())

        async def compute_for_a_while() -> None:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as tasks:
                tasks.create_task(pass_when_seen(deadline))
                await model.compute(X, out)

        with pytest.raises(TimeoutError) as caught:
            await compute_for_a_while()
        assert not isinstance(caught.value, ml.ModelLoaderError)
        assert time.monotonic() - started < 9
        with pytest.raises(ml.TimeoutError, match="still usable"):
            await model.compute(X, timeout=0.1)
        gate.set()
        np.testing.assert_array_equal(await model.compute(X * 2), X * 2)
        assert not out.any()

    with_loader(service, test)
    assert seen == [1, 2]


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
def test_timeout_ends_the_model(service: FakeService, relay: bool) -> None:
    content = put(service, None, workers.never)

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)
        with pytest.raises(ml.TimeoutError):
            await model.compute(X, timeout=0.2)
        assert model.lost is not None
        assert model.lost.reason is Cause.TIMEOUT

    with_loader(service, test, relay)
    closes = [request for method, request in service.calls if method == "CloseModel"]
    assert closes[0].deadline_passed


def test_end_of_an_idle_worker_is_an_event(service: FakeService) -> None:
    content = put(service)

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model, other = await loader.load(content), await loader.load(content)
        service.kill("model-0", Failure(Cause.KILLED, "by hand"))
        for _ in range(500):
            if model.lost is not None and model.lost.reason is not Cause.LOST:
                break
            await asyncio.sleep(0.01)
        assert model.lost == ml.Lost(Cause.KILLED, "by hand")
        with pytest.raises(ml.InvalidStateError):
            await model.compute(X)
        np.testing.assert_array_equal(await other.compute(X), X)

    with_loader(service, test)


@pytest.mark.parametrize(
    ("behave", "cause"),
    [
        (workers.end, Cause.CRASHED),
        (workers.say(b"rubbish" * 100), Cause.PROTOCOL_VIOLATION),
        (workers.fail(Cause.TIMEOUT), Cause.PROTOCOL_VIOLATION),
    ],
    ids=["end", "rubbish", "a failure of the judge's"],
)
def test_bad_ends(service: FakeService, behave: workers.Behaviour, cause: Cause) -> None:
    content = put(service, None, behave)

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)
        with pytest.raises(ml.OperationError) as caught:
            await model.compute(X)
        assert caught.value.cause is cause
        assert model.lost is not None
        assert model.lost.reason is cause

    with_loader(service, test)


def test_bytes_that_nobody_asked_for(service: FakeService) -> None:
    def twice(channel: Any, frame: workers.Frame) -> None:
        workers.echo(channel, frame)
        time.sleep(0.1)
        channel.sendall(b"more")

    content = put(service, None, twice)

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)
        await model.compute(X)
        await asyncio.sleep(0.3)
        with pytest.raises((ml.OperationError, ml.InvalidStateError)):
            await model.compute(X)
        assert model.lost is not None

    with_loader(service, test)


def test_one_model_from_many_tasks(service: FakeService) -> None:
    content = put(service, echoing(tensor("x", DataType.INT64, (3,))))

    async def test(loader: ml.aio.MLModelLoader) -> None:
        models = [await loader.load(content) for _ in range(3)]
        questions = [np.full(3, number) for number in range(200)]
        answers = await asyncio.gather(
            *(models[number % 3].compute(x) for number, x in enumerate(questions))
        )
        for question, answer in zip(questions, answers, strict=True):
            np.testing.assert_array_equal(answer, question)

    with_loader(service, test)


def test_cancelled_load_is_withdrawn(service: FakeService) -> None:
    class Slow:
        def read(self, size: int) -> bytes:
            time.sleep(0.5)
            return b"x"

    async def test(loader: ml.aio.MLModelLoader) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await loader.load(Slow())
        model = await loader.load(put(service))
        np.testing.assert_array_equal(await model.compute(X), X)

    with_loader(service, test)


def test_load_from_a_file_with_progress(service: FakeService, tmp_path: Path) -> None:
    content = bytes(3_500_000)
    service.files[content] = service.files[put(service)]
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    steps: list[tuple[int, int]] = []
    threads = set()

    def note(sent: int, total: int) -> None:
        steps.append((sent, total))
        threads.add(threading.current_thread())

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(path, on_progress=note)
        assert model.report.size == len(content)

    with_loader(service, test)
    assert steps[-1] == (len(content), len(content))
    assert len(steps) == 4
    assert threads == {threading.main_thread()}


def test_forgotten_model_ends_its_worker(service: FakeService) -> None:
    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(put(service))
        await model.compute(X)
        worker = service.loaded["model-0"].worker
        del model
        gc.collect()
        for _ in range(500):
            if not worker.is_alive():
                break
            await asyncio.sleep(0.01)
        assert not worker.is_alive()

    with_loader(service, test)


def test_object_of_another_loop_is_refused(service: FakeService) -> None:
    kept: list[ml.aio.MLModel] = []

    async def make() -> None:
        context = await ml.aio.create_context(connection=await ml.aio.connect(service.directory))
        kept.append(await ml.aio.MLModelLoader(context).load(put(service)))

    async def use() -> None:
        with pytest.raises(ml.InvalidStateError, match="another event loop"):
            await kept[0].compute(X)

    asyncio.run(make())
    asyncio.run(use())


def test_blocking_face_works_inside_a_running_loop(service: FakeService) -> None:
    """As in a notebook, whose cells run inside a loop."""

    async def cell() -> None:
        with ml.connect(service.directory) as connection:
            model = ml.MLModelLoader(ml.create_context(connection=connection)).load(put(service))
            np.testing.assert_array_equal(model.compute(X), X)
        with ml.connect(service.directory, relay=True) as connection:
            model = ml.MLModelLoader(ml.create_context(connection=connection)).load(put(service))
            np.testing.assert_array_equal(model.compute(X), X)

    asyncio.run(cell())


@pytest.mark.parametrize("name", ["Connection", "MLContext", "MLModelLoader", "MLModel"])
def test_both_faces_have_the_same_members(name: str) -> None:
    blocking, asynchronous = getattr(ml, name), getattr(ml.aio, name)

    def members(kind: type) -> dict[str, Any]:
        return {key: getattr(kind, key) for key in dir(kind) if not key.startswith("_")}

    assert set(members(blocking)) == set(members(asynchronous))
    for key, member in members(blocking).items():
        if callable(member):
            twin = members(asynchronous)[key]
            assert list(inspect.signature(member).parameters.values()) == list(
                inspect.signature(twin).parameters.values()
            ), key
        assert inspect.getdoc(members(asynchronous)[key]), key


@pytest.mark.parametrize("name", ["connect", "create_context", "embed"])
def test_functions_of_both_faces_take_the_same(name: str) -> None:
    def shape(function: Any) -> list[tuple[str, object, object]]:
        parameters = inspect.signature(function).parameters.values()
        return [(item.name, item.kind, item.default) for item in parameters]

    assert shape(getattr(ml, name)) == shape(getattr(ml.aio, name))


def test_many_computations_in_order(service: FakeService) -> None:
    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(put(service))
        inputs = [X + number for number in range(20)]
        for _ in range(2):
            got = [answer async for answer in model.compute_many(inputs)]
            np.testing.assert_array_equal(got, inputs)
        place = 0
        async for answer in model.compute_many(inputs):
            np.testing.assert_array_equal(answer, inputs[place])
            np.testing.assert_array_equal(await model.compute(X + 50 + place), X + 50 + place)
            place += 1
        assert place == 20
        async with contextlib.aclosing(model.compute_many(inputs)) as answers:
            np.testing.assert_array_equal(await anext(answers), inputs[0])
        np.testing.assert_array_equal(await model.compute(X + 3), X + 3)
        async with contextlib.aclosing(model.compute_many([X, np.zeros(77)])) as answers:
            np.testing.assert_array_equal(await anext(answers), X)
            with pytest.raises(ml.DataError):
                await anext(answers)

    with_loader(service, test)


def test_cancelled_sequences_cost_nobody_an_answer(service: FakeService) -> None:
    chance = random.Random(5)
    elements = 200_000
    content = put(service, echoing(tensor("x", DataType.INT64, (elements,))))

    async def test(loader: ml.aio.MLModelLoader) -> None:
        model = await loader.load(content)

        async def sequence(start: int) -> None:
            numbers = range(start, start + 4)
            place = start
            async with contextlib.aclosing(
                model.compute_many([np.full(elements, number) for number in numbers])
            ) as answers:
                async for answer in answers:
                    assert (answer[0], answer[-1]) == (place, place)
                    place += 1

        for start in range(0, 400, 4):
            task = asyncio.create_task(sequence(start))
            await asyncio.sleep(chance.uniform(0, 8e-3))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if start % 3 == 0:
                assert (await model.compute(np.full(elements, -start)))[-1] == -start
        assert model.lost is None

    with_loader(service, test)
