"""Bad models give typed errors within their deadline, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import costly, hostile, small
from tests.integration.arrays import filled, inputs_of
from tests.shared_models import SharedModel, each_model

ONE = np.array([1], np.float32)
LIMITS = ml.Limits(load_seconds=20, compute_seconds=5)

ERRORS = {
    "malformed": (ml.DataError, ml.NotSupportedError, ml.OperationError),
    "unsupported": (ml.NotSupportedError,),
    "crash": (ml.OperationError, ml.DataError),
}
"""What a model of each category of the manifest may end with."""


@pytest.fixture
def bystander(connection: ml.Connection) -> Iterator[ml.MLModel]:
    """Another model of the same origin, which must go on answering."""
    with ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        yield model
        assert model.compute(ONE) == 2
        assert model.lost is None


@pytest.fixture
def loader(connection: ml.Connection) -> Iterator[ml.MLModelLoader]:
    """A loader with shorter deadlines than the default."""
    with ml.create_context(connection=connection, limits=LIMITS) as context:
        yield ml.MLModelLoader(context)


def run(loader: ml.MLModelLoader, source: object) -> None:
    """Load a model and compute once with zeros."""
    with loader.load(source) as model:
        model.compute(inputs_of(model, 0))


@each_model(runs=False)
@pytest.mark.usefixtures("bystander")
def test_shared_models_that_cannot_run(
    loader: ml.MLModelLoader, runtime: str, shared_model: SharedModel
) -> None:
    allowed: tuple[type[ml.ModelLoaderError], ...] = ERRORS[shared_model.category]
    if runtime == "tflite-runtime":
        # This runtime does not verify a model: what LiteRT refuses may crash here, or even run.
        try:
            run(loader, shared_model.path)
        except (ml.DataError, ml.OperationError, ml.NotSupportedError, ml.SecurityError):
            return
        return
    with pytest.raises(allowed):
        run(loader, shared_model.path)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (hostile.abort_at_load, ml.OperationError),
        (hostile.stack_overflow_at_load, ml.DataError),
        (hostile.custom_operator, ml.NotSupportedError),
        (hostile.flex_operator, ml.NotSupportedError),
        (hostile.add_strings, ml.NotSupportedError),
        (hostile.wrong_schema_version, ml.DataError),
        (hostile.no_subgraphs, ml.DataError),
        (hostile.text_instead, ml.DataError),
        (hostile.truncated, ml.DataError),
        (hostile.root_outside, ml.DataError),
    ],
)
@pytest.mark.usefixtures("bystander")
def test_models_of_our_own_that_cannot_run(
    loader: ml.MLModelLoader, runtime: str, make: object, error: type[ml.ModelLoaderError]
) -> None:
    assert callable(make)
    expected = error
    if runtime == "tflite-runtime" and error is ml.DataError:
        expected = ml.ModelLoaderError
    with pytest.raises(expected):
        run(loader, make())


@pytest.mark.usefixtures("bystander")
def test_refusals_and_forgotten_models_are_no_crashes(loader: ml.MLModelLoader) -> None:
    """However often: the crash-loop guard counts only workers that died."""
    for _ in range(8):
        with pytest.raises(ml.NotSupportedError):
            loader.load(hostile.custom_operator())
    for _ in range(8):
        assert loader.load(small.add(5)).compute(ONE) == 6


@pytest.mark.usefixtures("bystander")
def test_an_index_out_of_range_fails_and_the_model_stays(loader: ml.MLModelLoader) -> None:
    with loader.load(hostile.gather()) as model:
        (info,) = model.inputs()
        bad = filled(info, 1 << 20)
        with pytest.raises(ml.OperationError):
            model.compute(bad)
        assert model.lost is None
        model.compute(np.zeros_like(bad))


@pytest.mark.usefixtures("bystander")
def test_a_fault_in_an_operator_loses_the_model_and_says_why(loader: ml.MLModelLoader) -> None:
    with loader.load(hostile.division_fault()) as model:
        assert model.compute(np.array([7], np.int32)) == 0
        with pytest.raises(ml.OperationError, match="SIGFPE"):
            model.compute(np.array([-(2**31)], np.int32))
        assert model.lost is not None
        assert model.lost.reason == "crashed"
        with pytest.raises(ml.InvalidStateError, match="SIGFPE"):
            model.compute(np.array([7], np.int32))


@pytest.mark.usefixtures("bystander")
def test_work_without_end_meets_its_deadline(loader: ml.MLModelLoader) -> None:
    with loader.load(costly.endless()) as model:
        inputs = inputs_of(model)
        with pytest.raises(ml.TimeoutError) as caught:
            model.compute(inputs, timeout=0.5)
        assert isinstance(caught.value, TimeoutError)
        assert model.lost is not None
        assert model.lost.reason == "timeout"
        with pytest.raises(ml.InvalidStateError, match="deadline"):
            model.compute(inputs)
