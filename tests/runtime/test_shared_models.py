"""Every third-party model gives through the engine what the plain library gives, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from loader_service.runtime.failures import (
    InvalidModel,
    ModelFailed,
    RuntimeFailure,
    UnsupportedModel,
)
from loader_service.runtime.interpreter import InterpreterRuntime
from tests.runtime.engines import (
    LITERT,
    TFLITE_RUNTIME,
    Plain,
    call,
    exit_of,
    load,
    random_inputs,
    signature_number,
)
from tests.shared_models import SharedModel, each_model, require_model, select
from tests.shared_runs import (
    LARGE,
    UNSUPPORTED_BY_TFLITE_RUNTIME,
    each_that_runs,
    first_inputs,
    stored_inputs,
)

pytestmark = pytest.mark.forks


def _model(runtime: InterpreterRuntime, shared_model: SharedModel) -> bytes:
    model = shared_model.read()
    if runtime.name == TFLITE_RUNTIME and shared_model.name in UNSUPPORTED_BY_TFLITE_RUNTIME:
        with pytest.raises(UnsupportedModel):
            load(runtime, model)
        pytest.skip("tflite-runtime does not support it, and says so")
    return model


@each_that_runs(slow=LARGE)
def test_default_call_equals_the_plain_library(
    runtime: InterpreterRuntime, shared_model: SharedModel
) -> None:
    """Three calls in sequence (states move alike), and the first answers again after a reset."""
    content = _model(runtime, shared_model)
    inputs = first_inputs(shared_model)
    model, plain = load(runtime, content), Plain(runtime, content)
    answers = []
    for _ in range(3):
        answers.append(call(model, inputs))
        assert answers[-1] == plain.call(inputs)
    if not shared_model.values["default_run"].get("second_invoke_identical", True):
        assert answers[1] != answers[0]
    model.reset()
    assert [call(model, inputs) for _ in range(2)] == answers[:2]


@each_that_runs("signature")
def test_signatures_equal_the_plain_library(
    runtime: InterpreterRuntime, shared_model: SharedModel
) -> None:
    """Each named signature, called twice on one interpreter."""
    runs = shared_model.expected_of("signature")
    content = _model(runtime, shared_model)
    model, plain = load(runtime, content), Plain(runtime, content)
    for _ in range(2):
        for run in runs:
            key = run.values["signature"]
            number = signature_number(model, key)
            signature = model.description.signatures[number]
            with np.load(run.path) as arrays:
                given = {
                    name: array.astype(object) if array.dtype.kind == "S" else array
                    for name, array in (
                        (tensor.name, arrays[f"in__{tensor.name}"]) for tensor in signature.inputs
                    )
                }
            answer = call(model, list(given.values()), number)
            names = [tensor.name for tensor in signature.outputs]
            assert dict(zip(names, answer, strict=True)) == plain.call_signature(key, given)


@each_that_runs("resize", slow=LARGE)
def test_resized_inputs_equal_the_plain_library(
    runtime: InterpreterRuntime, shared_model: SharedModel
) -> None:
    """To the stored shapes, back to the first ones, and to the stored ones again."""
    runs = shared_model.expected_of("resize")
    content = _model(runtime, shared_model)
    model, plain = load(runtime, content), Plain(runtime, content)
    with np.load(runs[0].path) as arrays:
        resized = stored_inputs(arrays)
    for inputs in (resized, first_inputs(shared_model), resized):
        assert call(model, inputs) == plain.call(inputs)


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_quant", "mobilenet_v1_0.25_224_float"])
def test_two_threads_equal_the_plain_library(runtime: InterpreterRuntime, name: str) -> None:
    shared_model = require_model(name)
    content, inputs = shared_model.read(), first_inputs(shared_model)
    model = load(runtime, content, threads=2)
    assert model.description.threads == 2
    assert call(model, inputs) == Plain(runtime, content, threads=2).call(inputs)


EXPECTED_FAILURES = {
    **{model.name: UnsupportedModel for model in select(category="unsupported")},
    **{model.name: InvalidModel for model in select(category="malformed")},
    # Well-formed files whose operators fail: to be prepared, the first, to run, the others.
    "bad_conv_no_bias": ModelFailed,
    "bad_segment_sum_invalid_buffer": ModelFailed,
    "fuzz_malicious_gather": ModelFailed,
}


@each_model(runs=False)
def test_refusals_are_typed(runtime: InterpreterRuntime, shared_model: SharedModel) -> None:
    """Each model that does not run fails with its type, at load or at the first call."""
    content = shared_model.read()
    if shared_model.kills_process:
        assert exit_of(lambda: _load_and_call(runtime, content)) == -6
        return
    with pytest.raises(RuntimeFailure) as failure:
        _load_and_call(runtime, content)
    assert failure.type is EXPECTED_FAILURES[shared_model.name]
    assert str(failure.value)


def _load_and_call(runtime: InterpreterRuntime, content: bytes) -> None:
    model = load(runtime, content)
    call(model, random_inputs(model.description.signatures[0]))


def test_a_failed_run_leaves_the_model_usable(runtime: InterpreterRuntime) -> None:
    """An index out of range is the call's failure, not the model's."""
    content = require_model("edge_embedding_lookup").read()
    model, plain = load(runtime, content), Plain(runtime, content)
    good = [np.array([1], np.int32)]
    with pytest.raises(ModelFailed):
        call(model, [np.array([100_000], np.int32)])
    with pytest.raises(ModelFailed, match="no answer"):
        model.outputs(0)
    assert call(model, good) == plain.call(good)


def test_litert_delegates_and_says_so(litert: InterpreterRuntime) -> None:
    assert litert.name == LITERT
    model = load(litert, require_model("mobilenet_v2_1.0_224_quant").read())
    assert model.description.kernels == "xnnpack"
    assert model.description.note == ""
