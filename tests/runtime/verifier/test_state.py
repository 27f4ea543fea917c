"""Which models are said to keep state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import small, stateful
from loader_service.writer.model import ModelWriter


def hidden_variable() -> bytes:
    """Write a model whose only variable is in a subgraph that its signature reaches by a call."""
    model = ModelWriter()
    graph, branch = model.subgraph(), model.subgraph("branch")
    x = graph.input("x", TensorType.FLOAT32, (1,))
    graph.output(x)
    branch.tensor("state", TensorType.FLOAT32, (1,), is_variable=True)
    return model.write()


def noise() -> bytes:
    """Write a model that draws random numbers."""
    model = ModelWriter()
    graph = model.subgraph()
    shape = graph.input("shape", TensorType.INT32, (1,))
    y = graph.tensor("y", TensorType.FLOAT32, (-1,))
    graph.operator(BuiltinOperator.RANDOM_UNIFORM, [shape], [y])
    graph.output(y)
    return model.write()


@pytest.mark.parametrize("make", [stateful.counter, stateful.running_sum, hidden_variable, noise])
def test_what_keeps_state(make: Callable[[], bytes]) -> None:
    assert verify(make())


@pytest.mark.parametrize("make", [small.add, small.fill, small.two_signatures])
def test_what_keeps_none(make: Callable[[], bytes]) -> None:
    assert not verify(make())
