"""When a model that XNNPACK fails gets the built-in kernels instead."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.failures import DelegateFailed, LimitReached, ModelFailed
from loader_service.runtime.interpreter import InterpreterModel, InterpreterRuntime
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.native import Library
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small, stateful
from loader_service.writer.layers import fully_connected
from loader_service.writer.model import ModelWriter
from loader_service.writer.tensors import Quantization
from tests.runtime.engines import Array, Plain, call, load

REASON = "Node number 1 (TfLiteXNNPackDelegate) failed to "


def _coarse_weights() -> bytes:
    """A quantized layer whose scales XNNPACK refuses when it is prepared: a factor above 256."""
    writer = ModelWriter()
    graph = writer.subgraph()
    one, coarse = Quantization.per_tensor(1.0), Quantization.per_tensor(1000.0)
    x = graph.input("x", TensorType.INT8, (1, 4), quantization=one)
    weights = graph.constant("weights", np.ones((2, 4), np.int8), quantization=coarse)
    bias = graph.constant("bias", np.zeros(2, np.int32), quantization=coarse)
    graph.output(fully_connected(graph, x, weights, bias, "y", quantization=one))
    return writer.write()


def test_a_model_that_xnnpack_cannot_prepare_runs_on_builtin_kernels(
    litert: InterpreterRuntime,
) -> None:
    content = _coarse_weights()
    with pytest.raises(RuntimeError, match="TfLiteXNNPackDelegate"):
        Plain(litert, content)
    model = load(litert, content)
    assert model.description.kernels == "builtin"
    assert "TfLiteXNNPackDelegate" in model.description.note
    value = [np.zeros((1, 4), np.int8)]
    assert call(model, value) == [((1, 2), b"\0\0")]
    model.reset()
    assert "TfLiteXNNPackDelegate" in model.description.note
    assert call(model, value) == [((1, 2), b"\0\0")]


class FailingNative:
    """An interpreter whose delegate fails on order; all else is the real one's."""

    def __init__(self, native: Any, fails: Callable[[str, int], None]) -> None:
        self._native = native
        self._fails = fails
        self.batch = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def ResizeInputTensor(self, i: int, value: Array, strict: bool, subgraph: int) -> None:  # noqa: N802
        self.batch = int(value[0])
        self._native.ResizeInputTensor(i, value, strict, subgraph)

    def AllocateTensors(self, subgraph: int) -> None:  # noqa: N802
        self._fails("prepare", self.batch)
        self._native.AllocateTensors(subgraph)

    def Invoke(self, subgraph: int) -> None:  # noqa: N802
        self._fails("invoke", self.batch)
        self._native.Invoke(subgraph)


class FailingLibrary(Library):
    """A library that notes which kernels it was asked for; `fails` says what the delegate fails."""

    def create(self, model: bytes, *, threads: int, resolver: int) -> Any:
        kernels = Kernels(resolver)
        opened.append(kernels)
        native = super().create(model, threads=threads, resolver=resolver)

        def fails(stage: str, batch: int) -> None:
            if fails_on(kernels, stage, batch):
                raise RuntimeError(f"{REASON}{stage}.")

        return FailingNative(native, fails)


opened: list[Kernels] = []
fails_on: Callable[[Kernels, str, int], bool]


@pytest.fixture
def failing(litert: InterpreterRuntime) -> Iterator[Callable[..., InterpreterModel]]:
    """Return a function that loads a model whose delegate fails where the argument says."""
    library = litert._library
    values = {field.name: getattr(library, field.name) for field in fields(library)}

    def load_failing(
        content: bytes, fails: Callable[[Kernels, str, int], bool], memory: int | None = None
    ) -> InterpreterModel:
        global fails_on
        fails_on = fails
        return InterpreterModel(FailingLibrary(**values), content, 1, memory)

    yield load_failing
    opened.clear()


def _delegate(stage: str, batch: int) -> Callable[[Kernels, str, int], bool]:
    return lambda *now: now == (Kernels.DEFAULT, stage, batch)


def _batch(size: int) -> list[Array]:
    return [np.arange(size * 4, dtype=np.float32).reshape(size, 4)]


def _doubled(size: int) -> list[tuple[tuple[int, ...], bytes]]:
    return [((size, 4), (2 * _batch(size)[0]).tobytes())]


def test_a_resize_before_the_first_answer_is_tried_again(
    failing: Callable[..., InterpreterModel],
) -> None:
    model = failing(small.dynamic_batch(), _delegate("prepare", 3))
    assert call(model, _batch(3)) == _doubled(3)
    assert opened == [Kernels.DEFAULT, Kernels.BUILTIN]
    assert REASON in model.description.note
    # A reset brings the first state back, and the usual kernels belong to it.
    model.reset()
    assert model.description.note == ""
    assert call(model, _batch(2)) == _doubled(2)
    assert opened[2:] == [Kernels.DEFAULT]


def test_no_elements_are_no_reason_for_a_retry(failing: Callable[..., InterpreterModel]) -> None:
    """XNNPACK refuses some empty batches; built-in convolutions divide by zero on them."""
    model = failing(small.dynamic_batch(), _delegate("prepare", 0))
    with pytest.raises(DelegateFailed):
        model.prepare_inputs(0, [(0, 4)])
    assert opened == [Kernels.DEFAULT]
    assert call(model, _batch(2)) == _doubled(2)


def test_a_resize_after_an_answer_fails_and_the_model_goes_on(
    failing: Callable[..., InterpreterModel],
) -> None:
    """Another interpreter would have another state, and other kernels other answers."""
    model = failing(small.dynamic_batch(), _delegate("prepare", 3))
    assert call(model, _batch(2)) == _doubled(2)
    with pytest.raises(DelegateFailed):
        call(model, _batch(3))
    assert call(model, _batch(2)) == _doubled(2)
    assert opened == [Kernels.DEFAULT]


def test_shapes_that_suit_no_kernels_leave_the_usual_ones(
    failing: Callable[..., InterpreterModel],
) -> None:
    model = failing(small.dynamic_batch(), lambda _, stage, batch: (stage, batch) == ("prepare", 3))
    with pytest.raises(DelegateFailed, match="failed to prepare"):
        call(model, _batch(3))
    assert opened == [Kernels.DEFAULT, Kernels.BUILTIN, Kernels.DEFAULT]
    assert model.description.note == ""
    assert call(model, _batch(2)) == _doubled(2)


def test_a_first_run_is_tried_again_with_the_same_inputs(
    failing: Callable[..., InterpreterModel],
) -> None:
    model = failing(small.dynamic_batch(), _delegate("invoke", 3))
    assert call(model, _batch(3)) == _doubled(3)
    assert opened == [Kernels.DEFAULT, Kernels.BUILTIN]
    assert REASON in model.description.note


def test_a_run_that_no_kernels_can_do_leaves_the_usual_ones(
    failing: Callable[..., InterpreterModel],
) -> None:
    model = failing(small.dynamic_batch(), lambda _, stage, batch: (stage, batch) == ("invoke", 3))
    with pytest.raises(DelegateFailed, match="failed to invoke"):
        call(model, _batch(3))
    assert opened == [Kernels.DEFAULT, Kernels.BUILTIN, Kernels.DEFAULT]
    assert model.description.note == ""
    assert call(model, _batch(2)) == _doubled(2)


def test_strings_and_scalars_are_given_again(failing: Callable[..., InterpreterModel]) -> None:
    words = np.array([b"a", b"", b"c"], object)
    model = failing(small.identity(TensorType.STRING, (3,)), _delegate("invoke", 1))
    assert call(model, [words])[0][0] == (3,)
    assert opened == [Kernels.DEFAULT, Kernels.BUILTIN]
    assert call(model, [words]) == call(model, [words])
    model = failing(small.scalar(), _delegate("invoke", 1))
    assert call(model, [np.array(2, np.float32)]) == [((), np.float32(3).tobytes())]


def test_a_run_after_an_answer_is_not_tried_again(
    failing: Callable[..., InterpreterModel],
) -> None:
    runs = []

    def second_run(kernels: Kernels, stage: str, batch: int) -> bool:
        runs.append(stage)
        return runs.count("invoke") == 2

    model = failing(stateful.counter(), second_run)
    one = [np.ones(1, np.float32)]
    first = call(model, one)
    with pytest.raises(ModelFailed):
        call(model, one)
    assert opened == [Kernels.DEFAULT]
    assert call(model, one) != first


def test_a_refused_allocation_is_the_limit_and_not_the_delegate(
    failing: Callable[..., InterpreterModel],
) -> None:
    place = ctypes.CDLL(None)["__errno_location"]
    place.restype = ctypes.c_void_p
    number = ctypes.c_int.from_address(place())

    def without_memory(kernels: Kernels, stage: str, batch: int) -> bool:
        number.value = errno.ENOMEM
        return batch == 3

    model = failing(small.dynamic_batch(), without_memory, 1 << 30)
    with pytest.raises(LimitReached) as failure:
        call(model, _batch(3))
    assert opened == [Kernels.DEFAULT]
    assert (failure.value.limit, failure.value.maximum) == ("memory_bytes", 1 << 30)
    assert failure.value.value > 1 << 30
    assert call(model, _batch(2)) == _doubled(2)
    unlimited = failing(small.dynamic_batch(), without_memory)
    with pytest.raises(ModelFailed, match="memory ran out"):
        call(unlimited, _batch(3))
