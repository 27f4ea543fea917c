"""``isolation="origin"``: an origin's models in one process, and what becomes of them there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import model_loader as ml
from loader_service.broker.settings import CHANNELS_PER_MODEL, MODELS_PER_HOST
from loader_service.sandbox.policy import OPEN_DESCRIPTORS
from loader_service.worker.orders import MOST_CHANNELS
from loader_service.writer import costly, hostile, small, stateful

from .arrays import inputs_of

pytestmark = pytest.mark.isolation

ONE = np.array([1], np.float32)
MIB = 1 << 20
MODELS = 8
"""``models_per_origin`` of the service."""
HANG_SECONDS = 20.0


@pytest.fixture(scope="module")
def service(runtime: str) -> Iterator[ml.Connection]:
    """A private service that isolates by origin."""
    limits = ml.Limits(models_per_origin=MODELS, compute_seconds=60, memory_bytes=256 * MIB)
    with ml.embed(runtime=runtime, isolation="origin", limits=limits) as service:
        yield service


@pytest.fixture
def connection(service: ml.Connection) -> Iterator[ml.Connection]:
    """A connection of the test's own."""
    with ml.connect(service.address, origin="own") as connection:
        yield connection


@pytest.fixture(params=["direct", "relayed"])
def road(request: pytest.FixtureRequest, service: ml.Connection) -> Iterator[ml.Connection]:
    """The same on each road to a model."""
    with ml.connect(service.address, origin="own", relay=request.param == "relayed") as road:
        yield road


@pytest.fixture
def other(service: ml.Connection) -> Iterator[ml.MLModel]:
    """A model of another origin, which must not notice what the test does."""
    with (
        ml.connect(service.address, origin="another") as another,
        load(another, small.add(41)) as model,
    ):
        yield model
        assert model.compute(ONE) == 42


def load(connection: ml.Connection, source: bytes, **limits: int | float) -> ml.MLModel:
    """Load in a context of its own."""
    context = ml.create_context(connection=connection, limits=ml.Limits(**limits))  # type: ignore[arg-type]
    return ml.MLModelLoader(context).load(source)


def pid_of(model: ml.MLModel) -> int:
    """The process that holds a model."""
    assert model.isolation.shared
    return model.isolation.worker_pid


def wait_for_loss(model: ml.MLModel) -> ml.Lost:
    """Wait until a model knows that it is lost."""
    ends = time.monotonic() + HANG_SECONDS
    while model.lost is None:
        assert time.monotonic() < ends, "the model lives on"
        time.sleep(0.005)
    return model.lost


def test_the_models_of_an_origin_are_in_one_process_and_two_origins_in_two(
    road: ml.Connection, other: ml.MLModel
) -> None:
    models = [load(road, small.add(number)) for number in range(4)]
    assert len({pid_of(model) for model in models}) == 1
    assert pid_of(other) != pid_of(models[0])
    wrong: list[Any] = []

    def use(number: int) -> None:
        for value in range(50):
            answer = models[number].compute(np.array([value], np.float32))
            if answer != number + value:
                wrong.append((number, value, answer))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()
    assert not wrong
    rows = {row.model_id: row for row in road.models()}
    assert {row.worker_pid for row in rows.values()} == {pid_of(models[0]), pid_of(other)}
    assert all(row.isolation.shared for row in rows.values())
    for model in models:
        model.close()
    assert not psutil.pid_exists(pid_of(models[0])), "the process ends with its last model"


def test_states_are_apart(road: ml.Connection) -> None:
    first, second = load(road, stateful.running_sum()), load(road, stateful.running_sum())
    one = np.ones((1, 1), np.float32)
    assert [float(first.compute(one).item()) for _ in range(3)] == [1, 2, 3]
    assert float(second.compute(one).item()) == 1
    first.reset()
    assert float(first.compute(one).item()) == 1
    assert float(second.compute(one).item()) == 2
    first.close()
    second.close()


def test_asynchronous_calls_of_many_models(connection: ml.Connection) -> None:
    async def test() -> None:
        async with (
            await ml.aio.connect(connection.address, origin="own") as own,
            await ml.aio.create_context(connection=own) as context,
        ):
            loader = ml.aio.MLModelLoader(context)
            sources = [small.add(number) for number in range(MODELS)]
            models = await asyncio.gather(*map(loader.load, sources))
            assert len({model.isolation.worker_pid for model in models}) == 1
            answers = await asyncio.gather(*(model.compute(ONE) for model in models * 5))
            assert [int(answer.item()) for answer in answers] == [*range(1, MODELS + 1)] * 5

    asyncio.run(test())


def test_models_per_origin_counts_models_and_processes_counts_processes(runtime: str) -> None:
    limits = ml.Limits(models_per_origin=3, processes=1)
    with ml.embed(runtime=runtime, isolation="origin", limits=limits) as own:
        models = [load(own, small.add()) for _ in range(3)]
        with pytest.raises(ml.QuotaExceededError) as error:
            load(own, small.add())
        assert (error.value.limit, error.value.value, error.value.maximum) == (
            *("models_per_origin", 4, 3),
        )
        with ml.connect(own.address, origin="another") as another:
            with pytest.raises(ml.QuotaExceededError) as error:
                load(another, small.add())
            assert (error.value.limit, error.value.value, error.value.maximum) == (
                *("processes", 2, 1),
            )
        models.pop().close()
        with pytest.raises(ml.QuotaExceededError, match="processes"):
            own.inspect(small.add())
        for model in models:
            model.close()
        assert own.inspect(small.add())["loads"], "an inspection has the place of a process"


@pytest.mark.parametrize("source", [hostile.text_instead(), hostile.custom_operator()])
def test_a_load_that_fails_leaves_the_others(connection: ml.Connection, source: bytes) -> None:
    with load(connection, small.add()) as model:
        for _ in range(CHANNELS_PER_MODEL * MODELS + 1):
            with pytest.raises((ml.DataError, ml.NotSupportedError)):
                load(connection, source)
        with load(connection, small.add(5)) as later:
            assert later.compute(ONE) == 6
            assert pid_of(later) == pid_of(model), "failed loads use no channel up"
        assert model.compute(ONE) == 2


def test_channels_that_are_used_up_lead_to_another_process(connection: ml.Connection) -> None:
    kept = load(connection, small.add())
    pids = set()
    for number in range(CHANNELS_PER_MODEL * MODELS):
        with load(connection, small.add(number)) as model:
            assert model.compute(ONE) == number + 1
            pids.add(pid_of(model))
    assert len(pids) == 2
    assert kept.compute(ONE) == 2
    kept.close()
    assert not psutil.pid_exists(pid_of(kept))


@pytest.mark.parametrize("ends", ["killed", "deadline", "closed by force"])
def test_what_ends_the_process_ends_all_its_models_with_one_reason(
    road: ml.Connection, other: ml.MLModel, ends: str
) -> None:
    models = [load(road, small.add(number)) for number in range(3)]
    victim = load(road, costly.endless(), compute_seconds=1)
    reason = {"killed": "killed", "deadline": "timeout", "closed by force": "timeout"}[ends]
    if ends == "killed":
        psutil.Process(pid_of(victim)).send_signal(signal.SIGKILL)
    else:
        timeout = 0.3 if ends == "closed by force" else None
        with pytest.raises(ml.TimeoutError):
            victim.compute(inputs_of(victim), timeout=timeout)
    for model in models:
        lost = wait_for_loss(model)
        assert lost.reason == reason
        assert re.search(r"held [34] models of this origin", lost.detail), lost
        with pytest.raises(ml.InvalidStateError):
            model.compute(ONE)
    assert other.lost is None
    assert other.compute(ONE) == 42
    with load(road, small.add()) as again:
        assert again.compute(ONE) == 2


def test_another_models_call_under_way_ends_with_the_reason(connection: ml.Connection) -> None:
    model, victim = load(connection, small.add()), load(connection, costly.endless())
    caught: list[BaseException] = []

    def call() -> None:
        try:
            model.compute(ONE)
        except ml.ModelLoaderError as error:
            caught.append(error)

    busy = threading.Thread(target=_run_out_of_time, args=(victim,))
    process = psutil.Process(pid_of(victim))
    before = process.cpu_times().user
    ends = time.monotonic() + HANG_SECONDS
    busy.start()
    while process.cpu_times().user < before + 0.05:
        assert time.monotonic() < ends, "the victim does not compute"
        time.sleep(0.005)
    waiting = threading.Thread(target=call)
    waiting.start()
    for thread in (busy, waiting):
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()
    (error,) = caught
    assert isinstance(error, ml.TimeoutError)
    assert model.lost is not None
    assert model.lost.reason == "timeout"


def _run_out_of_time(victim: ml.MLModel) -> None:
    with pytest.raises(ml.TimeoutError):
        victim.compute(inputs_of(victim), timeout=1.5)


def test_the_memory_limit_is_the_sum_and_grows_with_each_model(
    connection: ml.Connection, runtime: str
) -> None:
    """With one model 384 MiB are too many; with a second one they are allowed to either."""
    if runtime == "tflite-runtime" and "cgroup-memory" not in connection.layers:
        pytest.skip("this runtime uses the memory that RLIMIT_DATA refused it, and so crashes")
    hog = load(connection, costly.memory_hog_on_demand())
    second = load(connection, small.add())
    assert hog.compute(inputs_of(hog, 384))["y"] == 1
    second.close()
    with pytest.raises(ml.QuotaExceededError) as error:
        _compute_until_refused(hog)
    assert (error.value.limit, error.value.maximum) == ("memory_bytes", 256 * MIB)
    hog.close()


def _compute_until_refused(hog: ml.MLModel) -> None:
    """Compute until the limit is lowered, which waits for memory to be given back.

    The interpreter keeps the memory of its largest call until it is reset.
    """
    for tenths in (1, 2, 4, 8, 16, 32, 64):
        hog.reset()
        time.sleep(tenths / 10)
        hog.compute(inputs_of(hog, 384))


def test_running_out_of_memory_names_the_sum(connection: ml.Connection, runtime: str) -> None:
    if runtime == "tflite-runtime" and "cgroup-memory" not in connection.layers:
        pytest.skip("this runtime uses the memory that RLIMIT_DATA refused it, and so crashes")
    neighbour = load(connection, small.add(), memory_bytes=128 * MIB)
    hog = load(connection, costly.memory_hog_on_demand(), memory_bytes=64 * MIB)
    with pytest.raises(ml.QuotaExceededError) as error:
        hog.compute(inputs_of(hog, 384))
    assert (error.value.limit, error.value.maximum) == ("memory_bytes", 192 * MIB)
    if hog.lost is not None:
        assert wait_for_loss(neighbour).reason == "out-of-memory"
    else:
        assert neighbour.compute(ONE) == 2
    hog.close()
    neighbour.close()


def test_cpu_seconds_are_added_up(connection: ml.Connection) -> None:
    models = [load(connection, small.add(), cpu_seconds=1)]
    models.append(load(connection, costly.endless(), cpu_seconds=1))
    with pytest.raises(ml.QuotaExceededError) as error:
        models[1].compute(inputs_of(models[1]))
    assert (error.value.limit, error.value.maximum) == ("cpu_seconds", 2)
    assert wait_for_loss(models[0]).reason == "cpu-time"


def test_a_channel_for_each_model_and_four_descriptors_more(connection: ml.Connection) -> None:
    assert MODELS_PER_HOST == MOST_CHANNELS
    channels = CHANNELS_PER_MODEL * MODELS
    with load(connection, small.add()) as model:
        most = Path(f"/proc/{pid_of(model)}/limits").read_text()
        assert re.search(rf"Max open files +{OPEN_DESCRIPTORS - 1 + channels} ", most), most
        if os.geteuid() != 0:
            pytest.skip("only root may read the descriptors of a process that is not dumpable")
        entries = list(Path(f"/proc/{pid_of(model)}/fd").iterdir())
        assert sorted(int(entry.name) for entry in entries) == list(range(4 + channels))


def test_the_process_is_locked_down_as_any_other(connection: ml.Connection) -> None:
    with load(connection, small.add()) as model:
        lines = Path(f"/proc/{pid_of(model)}/status").read_text().splitlines()
        fields = {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}
        assert (fields["Seccomp"], fields["NoNewPrivs"], fields["Threads"]) == ("2", "1", "1")
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert {"seccomp", "no-new-privileges", "rlimits"} <= set(model.isolation.layers)
