"""Every third-party model gives through the service what the plain library gives in process.

Byte for byte, over the direct channel and over relayed gRPC, in each call form that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.interpreter import InterpreterRuntime
from tests.integration.arrays import filled
from tests.integration.conftest import either_road
from tests.runtime.engines import Answer, Array, Plain, answer_of, engine
from tests.shared_models import SharedModel, require_model
from tests.shared_runs import (
    HOG,
    LARGE,
    UNSUPPORTED_BY_TFLITE_RUNTIME,
    each_that_runs,
    first_inputs,
    stored_inputs,
)


@pytest.fixture(scope="module", params=["direct", pytest.param("relayed", marks=pytest.mark.slow)])
def road(request: pytest.FixtureRequest, connection: ml.Connection) -> Iterator[ml.Connection]:
    """As for other files; what is relayed is the same for all models, so all of them take long."""
    yield from either_road(request.param, connection)


@pytest.fixture
def plain_runtime(runtime: str) -> InterpreterRuntime:
    """The same runtime in this process."""
    return engine(runtime)


def load(loader: ml.MLModelLoader, shared_model: SharedModel, runtime: str) -> ml.MLModel:
    """Load by path; a model that only LiteRT takes is refused by the other runtime."""
    if runtime == "tflite-runtime" and shared_model.name in UNSUPPORTED_BY_TFLITE_RUNTIME:
        with pytest.raises(ml.NotSupportedError):
            loader.load(shared_model.path)
        pytest.skip("tflite-runtime does not support it, and says so")
    return loader.load(shared_model.path)


def given(model: ml.MLModel, inputs: Sequence[Array], signature: str | None = None) -> Any:
    """The inputs by name; raw bytes for a type that the API does not name."""
    infos = model.inputs(signature)
    return {
        info.name: array.tobytes() if info.data_type == "unknown" else array
        for info, array in zip(infos, inputs, strict=True)
    }


def load_and_compute(
    loader: ml.MLModelLoader, shared_model: SharedModel, inputs: Sequence[Array]
) -> None:
    """Load a model and run it once."""
    with loader.load(shared_model.path) as model:
        model.compute(given(model, inputs))


def same(model: ml.MLModel, answer: Mapping[str, Array], plain: Sequence[Answer]) -> bool:
    """Whether the answers are the same bytes, and the same shapes where types are named."""
    for info, expected in zip(model.outputs(), plain, strict=True):
        shape, data = answer_of(answer[info.name])
        if data != expected[1] or (info.data_type != "unknown" and shape != expected[0]):
            return False
    return True


@each_that_runs(slow=LARGE)
def test_default_call(
    road_loader: ml.MLModelLoader,
    runtime: str,
    plain_runtime: InterpreterRuntime,
    shared_model: SharedModel,
) -> None:
    """Three calls: states move alike; a second model has its own; a reset begins again."""
    inputs = first_inputs(shared_model)
    with (
        load(road_loader, shared_model, runtime) as model,
        load(road_loader, shared_model, runtime) as other,
    ):
        plain = Plain(plain_runtime, shared_model.read())
        expected = [plain.call(inputs) for _ in range(3)]
        assert same(model, model.compute(given(model, inputs)), expected[0])
        assert same(model, model.compute(given(model, inputs)), expected[1])
        assert same(other, other.compute(given(other, inputs)), expected[0])
        assert same(model, model.compute(given(model, inputs)), expected[2])
        model.reset()
        assert same(model, model.compute(given(model, inputs)), expected[0])


@each_that_runs()
def test_bare_and_preallocated_forms(
    road_loader: ml.MLModelLoader,
    runtime: str,
    plain_runtime: InterpreterRuntime,
    shared_model: SharedModel,
) -> None:
    inputs = first_inputs(shared_model)
    with load(road_loader, shared_model, runtime) as model:
        expected = Plain(plain_runtime, shared_model.read()).call(inputs)
        named = given(model, inputs)
        if len(inputs) == 1:
            (value,) = named.values()
            answer = model.compute(value)
            outputs = model.outputs()
            answer = {outputs[0].name: answer} if len(outputs) == 1 else answer
            assert same(model, answer, expected)
        fixed = all(
            info.dimensions is not None
            and None not in info.dimensions
            and info.data_type not in ("string", "unknown")
            for info in model.outputs()
        )
        if fixed and model.outputs():
            model.reset()
            places = {info.name: filled(info, 0) for info in model.outputs()}
            assert model.compute(named, places) is None
            assert same(model, places, expected)


@each_that_runs("signature")
def test_signatures(
    road_loader: ml.MLModelLoader,
    runtime: str,
    plain_runtime: InterpreterRuntime,
    shared_model: SharedModel,
) -> None:
    with load(road_loader, shared_model, runtime) as model:
        plain = Plain(plain_runtime, shared_model.read())
        for run in [*shared_model.expected_of("signature")] * 2:
            key = run.values["signature"]
            assert key in model.signatures()
            with np.load(run.path) as arrays:
                inputs = {
                    info.name: array.astype(object) if array.dtype.kind == "S" else array
                    for info, array in (
                        (info, arrays[f"in__{info.name}"]) for info in model.inputs(key)
                    )
                }
            answer = model.compute(inputs, signature=key)
            expected = plain.call_signature(key, inputs)
            assert {name: answer_of(array) for name, array in answer.items()} == expected


@each_that_runs("resize", slow=LARGE)
def test_resized_inputs(
    road_loader: ml.MLModelLoader,
    runtime: str,
    plain_runtime: InterpreterRuntime,
    shared_model: SharedModel,
) -> None:
    with np.load(shared_model.expected_of("resize")[0].path) as arrays:
        resized = stored_inputs(arrays)
    with load(road_loader, shared_model, runtime) as model:
        plain = Plain(plain_runtime, shared_model.read())
        for inputs in (resized, first_inputs(shared_model), resized):
            assert same(model, model.compute(given(model, inputs)), plain.call(inputs))


@pytest.mark.slow
def test_a_hog_meets_a_named_limit_and_runs_when_limits_allow(
    runtime: str, plain_runtime: InterpreterRuntime
) -> None:
    shared_model = require_model(HOG)
    inputs = [np.ones(info["shape"], info["dtype"]) for info in shared_model.values["inputs"]]
    defaults = ml.Limits()
    more_input = ml.Limits(tensor_bytes=1 << 30, compute_seconds=60)
    enough = ml.Limits(memory_bytes=6 << 30, tensor_bytes=1 << 30, compute_seconds=60)
    memory = ("memory_bytes", 1 << 30)
    for limits, named in (
        # Which comes first depends on what holds the memory: data segments count what is asked
        # for, a cgroup what is touched.
        (defaults, {memory, ("tensor_bytes", 256_000_000)}),
        (more_input, {memory}),
    ):
        with ml.embed(runtime=runtime, limits=limits) as connection:
            loader = ml.MLModelLoader(ml.create_context(connection=connection))
            with pytest.raises(ml.QuotaExceededError) as caught:
                load_and_compute(loader, shared_model, inputs)
            assert (caught.value.limit, caught.value.maximum) in named
    with ml.embed(runtime=runtime, limits=enough) as connection:
        loader = ml.MLModelLoader(ml.create_context(connection=connection))
        with loader.load(shared_model.path) as model:
            expected = Plain(plain_runtime, shared_model.read()).call(inputs)
            assert same(model, model.compute(given(model, inputs)), expected)
