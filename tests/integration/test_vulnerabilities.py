"""Models of published flaws meet a typed error or die in their worker; nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import costly, hostile, small
from loader_service.writer.one_operator import Regression
from loader_service.writer.vulnerabilities import REGRESSIONS
from loader_service.writer.warm_up import warm_up_model
from tests.integration.arrays import inputs_of

ONE = np.array([1], np.float32)


@pytest.fixture
def bystander(connection: ml.Connection) -> Iterator[ml.MLModel]:
    """Another model of the same origin, which must go on answering."""
    with ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        yield model
        assert model.compute(ONE) == 2
        assert model.lost is None


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda found: found.make.__name__)
@pytest.mark.usefixtures("bystander")
def test_a_published_flaw_is_refused_at_load(
    loader: ml.MLModelLoader, regression: Regression
) -> None:
    with pytest.raises((ml.DataError, ml.NotSupportedError), match=regression.says):
        loader.load(regression.make())


@pytest.mark.usefixtures("bystander")
def test_a_failed_check_ends_the_worker_only(loader: ml.MLModelLoader) -> None:
    with pytest.raises(ml.OperationError, match="SIGABRT"):
        loader.load(hostile.abort_at_load())


@pytest.mark.usefixtures("bystander")
def test_an_arithmetic_fault_ends_the_worker_only(loader: ml.MLModelLoader) -> None:
    with loader.load(hostile.division_fault()) as model:
        with pytest.raises(ml.OperationError, match="SIGFPE"):
            model.compute(np.array([-(2**31)], np.int32))
        assert model.lost is not None
        assert model.lost.reason == "crashed"


@pytest.mark.usefixtures("bystander")
def test_a_loop_without_end_meets_its_deadline(loader: ml.MLModelLoader) -> None:
    with loader.load(costly.endless()) as model, pytest.raises(ml.TimeoutError):
        model.compute(inputs_of(model), timeout=0.5)


@pytest.mark.usefixtures("bystander")
def test_a_memory_bomb_is_named_before_it_is_allocated(connection: ml.Connection) -> None:
    with ml.create_context(
        connection=connection, limits=ml.Limits(memory_bytes=256 << 20)
    ) as context:
        with pytest.raises(ml.QuotaExceededError, match="BROADCAST_TO") as caught:
            ml.MLModelLoader(context).load(costly.memory_hog(1))
        error = caught.value
        assert (error.limit, error.value, error.maximum) == ("memory_bytes", 1 << 30, 256 << 20)


def test_a_hardened_service_takes_arithmetic_and_nothing_else(runtime: str) -> None:
    with ml.embed(runtime=runtime, operators="hardened") as connection:
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        with loader.load(small.add()) as model:
            assert model.compute(ONE) == 2
        loader.load(warm_up_model()).close()
        with pytest.raises(ml.NotSupportedError, match=r"operator 1 \(WHILE\)"):
            loader.load(costly.endless())
        with pytest.raises(ml.NotSupportedError, match="allows no custom operator"):
            loader.load(hostile.custom_operator())


def test_a_profile_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ml.ConstraintError, match="operators must be one of"):
        ml.embed(operators="anything")
