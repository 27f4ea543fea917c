"""Tiny models whose answer depends on earlier calls."""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType

from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Tensor

_FLOAT = TensorType.FLOAT32


def _handle(graph: SubgraphWriter, shared_name: str) -> Tensor:
    """The handle of the resource variable that all subgraphs know by one name."""
    handle = graph.tensor("handle", TensorType.RESOURCE, ())
    graph.operator(BuiltinOperator.VAR_HANDLE, [], [handle], container="", shared_name=shared_name)
    return handle


def counter() -> bytes:
    """x: float32[1] → y = the sum of all x so far: a resource variable, set to 0 by CALL_ONCE.

    The signature `add` does that; the signature `read` (no inputs → value) shows the sum only.
    """
    model = ModelWriter()
    graph, begin = model.subgraph(), model.subgraph("begin")
    x = graph.input("x", _FLOAT, (1,))
    y = graph.tensor("y", _FLOAT, (1,))
    graph.operator(BuiltinOperator.CALL_ONCE, [], [], init_subgraph_index=begin.index)
    handle = _handle(graph, "sum")
    value = graph.tensor("value", _FLOAT, (1,))
    graph.operator(BuiltinOperator.READ_VARIABLE, [handle], [value])
    graph.operator(BuiltinOperator.ADD, [x, value], [y])
    graph.operator(BuiltinOperator.ASSIGN_VARIABLE, [handle, y], [])
    graph.output(y)

    zero = begin.constant("zero", np.zeros(1, np.float32))
    begin.operator(BuiltinOperator.ASSIGN_VARIABLE, [_handle(begin, "sum"), zero], [])

    read = model.subgraph("read")
    read.operator(BuiltinOperator.CALL_ONCE, [], [], init_subgraph_index=begin.index)
    shown = read.tensor("shown", _FLOAT, (1,))
    read.operator(BuiltinOperator.READ_VARIABLE, [_handle(read, "sum")], [shown])
    read.output(shown)

    model.signature("add", graph, {"x": x}, {"y": y})
    model.signature("read", read, {}, {"value": shown})
    return model.write()


def running_sum(length: int = 3) -> bytes:
    """x: float32[1, 1] → y = the sum of the last `length` x: a variable tensor, kept by SVDF."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1, 1))
    feature = graph.constant("feature_weights", np.ones((1, 1), np.float32))
    time = graph.constant("time_weights", np.ones((1, length), np.float32))
    state = graph.tensor("state", _FLOAT, (1, length), is_variable=True)
    y = graph.tensor("y", _FLOAT, (1, 1))
    graph.operator(BuiltinOperator.SVDF, [x, feature, time, None, state], [y], rank=1)
    graph.output(y)
    return model.write()
