"""Each limit acts, and its error names it, the value and the maximum."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

import model_loader as ml
from loader_service.writer import costly, small
from tests.support.processes import wait_until_empty

from .arrays import inputs_of
from .conftest import broker_pid

ONE = np.array([1], np.float32)


def caught_limit(error: pytest.ExceptionInfo[ml.QuotaExceededError]) -> tuple[str, float, float]:
    """What the error says, after checking that its message says it too."""
    value = error.value
    assert value.limit is not None
    assert value.limit in str(value)
    assert value.value is not None
    assert value.maximum is not None
    return value.limit, value.value, value.maximum


def load(connection: ml.Connection, source: bytes, **limits: int | float) -> ml.MLModel:
    """Load with lowered limits."""
    context = ml.create_context(connection=connection, limits=ml.Limits(**limits))  # type: ignore[arg-type]
    return ml.MLModelLoader(context).load(source)


def test_model_bytes(connection: ml.Connection) -> None:
    model = small.add()
    with pytest.raises(ml.QuotaExceededError) as error:
        load(connection, model, model_bytes=100)
    assert caught_limit(error) == ("model_bytes", len(model), 100)


def test_tensor_bytes(connection: ml.Connection) -> None:
    with load(connection, small.dynamic_batch(), tensor_bytes=64) as model:
        assert model.compute(np.ones((4, 4), np.float32)).shape == (4, 4)
        with pytest.raises(ml.QuotaExceededError) as error:
            model.compute(np.ones((5, 4), np.float32))
        assert caught_limit(error) == ("tensor_bytes", 80, 64)
        assert model.compute(np.ones((1, 4), np.float32)).shape == (1, 4)


def test_output_bytes(road: ml.Connection) -> None:
    with load(road, small.broadcast(100_000), output_bytes=100_000) as model:
        inputs = inputs_of(model)
        for _ in range(2):
            with pytest.raises(ml.QuotaExceededError) as error:
                model.compute(inputs)
            assert caught_limit(error) == ("output_bytes", 400_000, 100_000)
        assert model.lost is None


@pytest.mark.isolation
def test_memory(connection: ml.Connection, runtime: str) -> None:
    with pytest.raises(ml.QuotaExceededError) as error:
        compute(load(connection, costly.memory_hog(), memory_bytes=256 << 20))
    limit, _, maximum = caught_limit(error)
    assert (limit, maximum) == ("memory_bytes", 256 << 20)
    assert runtime


@pytest.mark.isolation
def test_memory_on_demand_loses_only_the_hog(connection: ml.Connection, runtime: str) -> None:
    with load(connection, small.add()) as other:
        hog = load(connection, costly.memory_hog_on_demand(), memory_bytes=256 << 20)
        if runtime == "tflite-runtime" and "cgroup-memory" not in connection.layers:
            # This runtime uses the memory that RLIMIT_DATA refused it, and so crashes.
            with pytest.raises(ml.OperationError, match="SIGSEGV"):
                hog.compute(inputs_of(hog, 1024))
        else:
            with pytest.raises(ml.QuotaExceededError) as error:
                hog.compute(inputs_of(hog, 1024))
            limit, _, maximum = caught_limit(error)
            assert (limit, maximum) == ("memory_bytes", 256 << 20)
        assert other.compute(ONE) == 2


def test_compute_seconds(road: ml.Connection) -> None:
    with load(road, costly.endless(), compute_seconds=0.5) as model:
        with pytest.raises(ml.TimeoutError):
            compute(model)
        assert model.lost is not None
        assert model.lost.reason == "timeout"


def test_load_seconds(connection: ml.Connection) -> None:
    with pytest.raises(ml.TimeoutError):
        load(connection, small.add(), load_seconds=0.0001)


@pytest.mark.isolation
def test_cpu_seconds(connection: ml.Connection) -> None:
    with load(connection, costly.endless(), cpu_seconds=1) as model:
        with pytest.raises(ml.QuotaExceededError) as error:
            compute(model)
        limit, value, maximum = caught_limit(error)
        assert (limit, maximum) == ("cpu_seconds", 1)
        assert value >= 1


@pytest.mark.isolation
def test_cpu_percent_throttles_or_is_refused_by_name(connection: ml.Connection) -> None:
    if "cgroup-cpu" not in connection.layers:
        with pytest.raises(ml.NotSupportedError, match="cpu_percent"):
            load(connection, small.add(), cpu_percent=50)
        return
    with load(connection, costly.endless(), cpu_percent=20) as model:
        with pytest.raises(ml.TimeoutError):
            compute(model, timeout=0.5)
        assert model.lost is not None


def test_threads_caps_num_threads(connection: ml.Connection) -> None:
    context = ml.create_context(connection=connection, num_threads=64, limits=ml.Limits(threads=1))
    with ml.MLModelLoader(context).load(small.add()) as model:
        assert model.report.threads == 1
        assert psutil.Process(model.isolation.worker_pid).num_threads() == 1


def test_two_threads_are_two_threads(connection: ml.Connection) -> None:
    context = ml.create_context(connection=connection, num_threads=2)
    with ml.MLModelLoader(context).load(small.add()) as model:
        assert model.compute(ONE) == 2
        assert model.report.threads == 2


def test_models_per_origin() -> None:
    with ml.embed(limits=ml.Limits(models_per_origin=2)) as connection:
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        models = [loader.load(small.add()) for _ in range(2)]
        with pytest.raises(ml.QuotaExceededError) as error:
            loader.load(small.add())
        assert caught_limit(error) == ("models_per_origin", 3, 2)
        with ml.connect(connection.address, origin="another") as other:
            ml.MLModelLoader(ml.create_context(connection=other)).load(small.add()).close()
        models.pop().close()
        models.append(loader.load(small.add()))
        assert [model.compute(ONE) for model in models] == [2, 2]


def test_models_that_are_let_go_of_make_room() -> None:
    with ml.embed(limits=ml.Limits(models_per_origin=2)) as connection:
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        models: list[ml.MLModel | None] = [None, None]
        for turn in range(20):
            models[turn % 2] = None
            models[turn % 2] = loader.load(small.add())


def test_processes() -> None:
    with ml.embed(limits=ml.Limits(processes=2)) as connection:
        loaders = [
            ml.MLModelLoader(
                ml.create_context(connection=ml.connect(connection.address, origin=name))
            )
            for name in "abc"
        ]
        models = [loader.load(small.add()) for loader in loaders[:2]]
        with pytest.raises(ml.QuotaExceededError) as error:
            loaders[2].load(small.add())
        assert caught_limit(error) == ("processes", 3, 2)
        assert [model.compute(ONE) for model in models] == [2, 2]


@pytest.mark.parametrize("limit", ["models_per_origin", "processes"])
def test_counts_can_be_lowered_for_a_context(connection: ml.Connection, limit: str) -> None:
    with ml.connect(connection.address, origin=f"few {limit}") as few:
        loader = ml.MLModelLoader(ml.create_context(connection=few))
        with loader.load(small.add()) as model:
            with pytest.raises(ml.QuotaExceededError) as error:
                load(few, small.add(), **{limit: 1})
            assert caught_limit(error)[0] == limit
            assert caught_limit(error)[2] == 1
            assert model.compute(ONE) == 2


def test_a_limit_can_only_be_lowered(connection: ml.Connection) -> None:
    with pytest.raises(ml.QuotaExceededError) as error:
        load(connection, small.add(), memory_bytes=1 << 40)
    assert caught_limit(error) == ("memory_bytes", 1 << 40, 1 << 30)


@pytest.mark.parametrize("values", [{"threads": 0}, {"memory_bytes": -1}, {"load_seconds": 0.0}])
def test_impossible_limits_are_refused_at_once(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ml.Limits(**values)  # type: ignore[arg-type]


def test_nothing_is_left_after_all_this(connection: ml.Connection) -> None:
    broker = psutil.Process(broker_pid(connection))

    def left() -> list[int]:
        """Workers beside the one that may wait for the next load, and has seen no model."""
        children = broker.children(recursive=True)
        return [child.pid for child in children if name_of(child) != "ml-zygote"][1:]

    assert not wait_until_empty(left, 20)


def name_of(process: psutil.Process) -> str:
    """A process's name; none for one that has just ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def compute(model: ml.MLModel, timeout: float | None = None) -> object:
    """Run a model once with ones."""
    return model.compute(inputs_of(model), timeout=timeout)
