"""A limit that makes allocations fail is named, and not mistaken for a broken model."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from loader_service.runtime.failures import LimitReached, ModelFailed
from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.writer import costly, small
from tests.runtime.engines import TFLITE_RUNTIME, Plain, call, exit_of, random_inputs
from tests.shared_models import require_model

pytestmark = pytest.mark.forks

GIB = 1 << 30


def _refused(runtime: InterpreterRuntime, content: bytes, memory: int) -> None:
    """In a process under that limit: loading or the first call reaches it, by name."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with pytest.raises(LimitReached) as failure:
        _load_and_call(runtime, content, memory)
    assert (failure.value.limit, failure.value.maximum) == ("memory_bytes", memory)
    assert failure.value.value > memory
    # The process goes on, and so may a smaller model.
    model = runtime.load(small.add(), threads=1, memory_bytes=memory)
    assert len(call(model, [np.ones(1, np.float32)])) == 1


def _load_and_call(runtime: InterpreterRuntime, content: bytes, memory: int) -> None:
    model = runtime.load(content, threads=1, memory_bytes=memory)
    call(model, random_inputs(model.description.signatures[0]))


def test_a_hog_reaches_the_limit_at_load(runtime: InterpreterRuntime) -> None:
    content = costly.memory_hog(4)
    assert exit_of(lambda: _refused(runtime, content, GIB)) == 0


def test_a_hog_in_a_call_reaches_the_limit(runtime: InterpreterRuntime) -> None:
    """And the same loaded model then answers a call that wants less."""
    content = costly.memory_hog_on_demand()

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (GIB, GIB))
        model = runtime.load(content, threads=1, memory_bytes=GIB)
        little, much = np.array([4], np.int32), np.array([2000], np.int32)
        answer = call(model, [little])
        with pytest.raises(LimitReached) as failure:
            call(model, [much])
        assert failure.value.value > GIB
        assert call(model, [little]) == answer

    # tflite-runtime 2.14 writes where it got nothing, and that is the end of the process.
    assert exit_of(body) == (-11 if runtime.name == TFLITE_RUNTIME else 0)


def test_a_real_hog_reaches_the_limit_at_one_gibibyte(runtime: InterpreterRuntime) -> None:
    """XNNPACK "failed to reshape runtime": a retry on built-in kernels would take four times it."""
    content = require_model("hog_conv_huge_im2col").read()
    assert exit_of(lambda: _refused(runtime, content, GIB)) == 0


@pytest.mark.slow
def test_a_real_hog_runs_within_four_gibibytes(runtime: InterpreterRuntime) -> None:
    content = require_model("hog_conv_huge_im2col").read()

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (4 * GIB, 4 * GIB))
        model = runtime.load(content, threads=1, memory_bytes=4 * GIB)
        inputs = random_inputs(model.description.signatures[0])
        answer = call(model, inputs)
        assert model.description.kernels == "xnnpack"
        del model
        assert answer == Plain(runtime, content).call(inputs)

    assert exit_of(body) == 0


def test_shapes_beyond_the_limit_are_its_failure_and_not_the_models(
    runtime: InterpreterRuntime,
) -> None:
    content = small.dynamic_batch()

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (GIB, GIB))
        model = runtime.load(content, threads=1, memory_bytes=GIB)
        with pytest.raises(LimitReached) as failure:
            model.prepare_inputs(0, [(GIB // 4, 4)])
        assert failure.value.value >= 4 * GIB
        value = np.ones((2, 4), np.float32)
        answer = [((2, 4), (2 * value).tobytes())]
        assert call(model, [value]) == answer
        # The second time there is an answer already, and so perhaps a state.
        with pytest.raises(LimitReached):
            model.prepare_inputs(0, [(GIB // 4, 4)])
        if runtime.name == TFLITE_RUNTIME:
            with pytest.raises(ModelFailed, match="reset the model"):
                call(model, [value])
            model.reset()
        assert call(model, [value]) == answer

    assert exit_of(body) == 0
