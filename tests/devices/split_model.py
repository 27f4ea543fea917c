"""A model that a device which knows additions and multiplications takes in two pieces."""

from __future__ import annotations

from typing import Any

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from loader_service.writer.subgraph import SubgraphWriter
from loader_service.writer.tensors import Tensor

Array = np.ndarray[Any, Any]
SHAPE = (1, 4)
NODES = ("ADD", "MUL", "LOGISTIC", "ADD", "MUL", "ADD")
FIRST, SECOND = (0, 1), (3, 4, 5)
"""What such a device takes: two pieces with a logistic between them."""


def split_model(*, open_batch: bool = False) -> bytes:
    """x: float32[1, 4] → y = (s + 3) * 2 + s, where s is the logistic of (x + 1) * 2."""
    model = ModelWriter("additions and multiplications around a logistic")
    graph = model.subgraph()
    signature = (-1, 4) if open_batch else None
    x = graph.input("x", TensorType.FLOAT32, SHAPE, shape_signature=signature)
    one = _number(graph, "one", 1)
    two = _number(graph, "two", 2)
    three = _number(graph, "three", 3)

    def tensor(name: str) -> Tensor:
        return graph.tensor(name, TensorType.FLOAT32, SHAPE, shape_signature=signature)

    def compute(code: BuiltinOperator, left: Tensor, right: Tensor, name: str) -> Tensor:
        result = tensor(name)
        graph.operator(code, [left, right], [result], fused_activation_function=0)
        return result

    raised = compute(BuiltinOperator.ADD, x, one, "raised")
    scaled = compute(BuiltinOperator.MUL, raised, two, "scaled")
    squashed = tensor("squashed")
    graph.operator(BuiltinOperator.LOGISTIC, [scaled], [squashed])
    again = compute(BuiltinOperator.ADD, squashed, three, "again")
    doubled = compute(BuiltinOperator.MUL, again, two, "doubled")
    y = compute(BuiltinOperator.ADD, doubled, squashed, "y")
    graph.output(y)
    model.signature("serving_default", graph, {"x": x}, {"y": y})
    return model.write()


def expected(x: Array) -> Array:
    """Compute the model's answer."""
    squashed = 1 / (1 + np.exp(-(x + 1) * 2))
    result: Array = ((squashed + 3) * 2 + squashed).astype(np.float32)
    return result


def _number(graph: SubgraphWriter, name: str, value: float) -> Tensor:
    return graph.constant(name, np.array([value], np.float32))
