"""The rules refuse nothing that runs: each kernel, and what lies just inside a rule's bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loader_service.runtime.failures import InvalidModel
from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import small, stateful
from loader_service.writer.model import ModelWriter
from loader_service.writer.one_operator import convolution, ints, one
from loader_service.writer.tensors import Quantization, Shape
from tests.fuzz.models.kernels import kernel_models

FLOAT, INT8, INT16 = TensorType.FLOAT32, TensorType.INT8, TensorType.INT16
KERNELS = dict(kernel_models())


@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel_is_accepted(name: str) -> None:
    verify(KERNELS[name])


def quantized(
    code: Op, kind: TensorType, *scales: float | None, output: TensorType | None = None
) -> bytes:
    """Two inputs and an output of those scales."""
    model = ModelWriter()
    graph = model.subgraph()
    first, second, last = (
        None if scale is None else Quantization.per_tensor(scale) for scale in scales
    )
    a = graph.input("a", kind, (8,), quantization=first)
    b = graph.input("b", kind, (8,), quantization=second)
    y = graph.tensor("y", kind if output is None else output, (8,), quantization=last)
    graph.operator(code, [a, b], [y], version=2)
    graph.output(y)
    return model.write()


def batch_open(code: Op, image: Shape, result: Shape, **options: Any) -> bytes:
    """A pool over images whose number, height and width are open."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", FLOAT, image, shape_signature=(-1, -1, -1, image[3]))
    y = graph.tensor("y", FLOAT, result, shape_signature=(-1, -1, -1, result[3]))
    graph.operator(code, [x], [y], **options)
    graph.output(y)
    return model.write()


def sliced(begin: int, size: int) -> bytes:
    """Some of four numbers."""
    return one(
        Op.SLICE,
        lambda graph: [
            graph.input("x", FLOAT, (4,)),
            ints(graph, "begin", begin),
            ints(graph, "size", size),
        ],
        (max(size, 1),),
    )


def mirrored(width: int, mode: int) -> bytes:
    """Three numbers with that many mirrored before them; the batch is open."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", FLOAT, (1, 3), shape_signature=(-1, 3))
    paddings = graph.constant("paddings", np.array([[0, 0], [width, 0]], np.int32))
    y = graph.tensor("y", FLOAT, (1, 3 + width), shape_signature=(-1, 3 + width))
    graph.operator(Op.MIRROR_PAD, [x, paddings], [y], mode=mode)
    graph.output(y)
    return model.write()


POOL: dict[str, Any] = {
    "stride_w": 1,
    "stride_h": 1,
    "filter_width": 3,
    "filter_height": 3,
    "padding": 1,
}
BOUNDS: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "sum of int8": (
        lambda: quantized(Op.ADD, INT8, 2.0**18, 1.0, 1.0),
        lambda: quantized(Op.ADD, INT8, 2.0**19, 1.0, 1.0),
    ),
    "sum of int16": (
        lambda: quantized(Op.ADD, INT16, 2.0**13, 1.0, 1.0),
        lambda: quantized(Op.ADD, INT16, 2.0**14, 1.0, 1.0),
    ),
    "sum of int16 without scales": (
        lambda: quantized(Op.ADD, INT16, None, None, None),
        lambda: quantized(Op.ADD, INT16, 1.0, None, None),
    ),
    "square": (
        lambda: quantized(Op.SQUARED_DIFFERENCE, INT8, 2.0**5, 1.0, 1.0),
        lambda: quantized(Op.SQUARED_DIFFERENCE, INT8, 2.0**6, 1.0, 1.0),
    ),
    "comparison": (
        lambda: quantized(Op.EQUAL, INT8, 0.999, 0.001, None, output=TensorType.BOOL),
        lambda: quantized(Op.EQUAL, INT8, 1.0, 0.001, None, output=TensorType.BOOL),
    ),
    "slice": (lambda: sliced(1, 3), lambda: sliced(2, 3)),
    "slice to the end": (lambda: sliced(4, -1), lambda: sliced(5, -1)),
    "reflection": (lambda: mirrored(2, 0), lambda: mirrored(3, 0)),
    "symmetric reflection": (lambda: mirrored(3, 1), lambda: mirrored(4, 1)),
    "moved window": (
        lambda: convolution((1, 8, 8, 1), (1, 3, 3, 1), stride=3, shape=(1, 3, 3, 1)),
        lambda: convolution((1, 8, 8, 1), (1, 3, 3, 1), stride=3, shape=(1, 2, 3, 1)),
    ),
    "pool of the whole image": (
        lambda: one(
            Op.MAX_POOL_2D, lambda graph: [graph.input("x", FLOAT, (1, 3, 3, 1))], (1, 1, 1, 1),
            **POOL,
        ),
        lambda: one(
            Op.MAX_POOL_2D, lambda graph: [graph.input("x", FLOAT, (1, 2, 3, 1))], (1, 1, 1, 1),
            **POOL,
        ),
    ),
}  # fmt: skip
"""A model just inside a rule's bound, and one just outside."""


@pytest.mark.parametrize("name", BOUNDS)
def test_a_rule_begins_at_its_bound(name: str) -> None:
    inside, outside = BOUNDS[name]
    verify(inside())
    with pytest.raises(InvalidModel):
        verify(outside())


def test_open_sizes_are_not_compared() -> None:
    verify(batch_open(Op.MAX_POOL_2D, (1, 1, 1, 2), (1, 1, 1, 2), **POOL))


def test_variables_that_fit_are_accepted() -> None:
    verify(stateful.counter())
    verify(stateful.running_sum())
    verify(small.double(INT16))
