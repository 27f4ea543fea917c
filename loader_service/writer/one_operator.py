"""Models of one operator, and what they are made of: the smallest that can show a flaw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType

from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Shape, Tensor

_FLOAT = TensorType.FLOAT32


class Regression(NamedTuple):
    """A model, the report that it stands for, and what the refusal says."""

    make: Callable[[], bytes]
    report: str
    says: str


def one(
    code: Op | str,
    inputs: Callable[[SubgraphWriter], Sequence[Tensor | None]],
    shape: Shape = (1,),
    output: TensorType = _FLOAT,
    version: int = 1,
    **options: Any,
) -> bytes:
    """A model of one operator."""
    model = ModelWriter()
    graph = model.subgraph()
    given = inputs(graph)
    y = graph.tensor("y", output, shape)
    graph.operator(code, given, [y], version=version, **options)
    graph.output(y)
    return model.write()


def ints(graph: SubgraphWriter, name: str, *values: int) -> Tensor:
    """A constant of int32, of one dimension."""
    return graph.constant(name, np.array(values, np.int32))


def zeros(graph: SubgraphWriter, name: str, *shape: int) -> Tensor:
    """A constant of float32."""
    return graph.constant(name, np.zeros(shape, np.float32))


def convolution(
    image: Shape, weights: Shape, stride: int = 1, shape: Shape = (1, 2, 2, 1)
) -> bytes:
    """CONV_2D of float32, without padding of its own; `shape` is the output's."""
    return one(
        Op.CONV_2D,
        lambda graph: [
            graph.input("x", _FLOAT, image),
            zeros(graph, "weights", *weights),
            zeros(graph, "bias", weights[0]),
        ],
        shape,
        stride_w=stride,
        stride_h=stride,
    )
