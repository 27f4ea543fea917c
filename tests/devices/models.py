"""Chains of small operators, with any of them where a device is to be found out of its depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter

Array = np.ndarray[Any, Any]
LENGTH = 4
ADDEND = 1.5


def chain(operators: Sequence[str]) -> bytes:
    """x: float32[4] → y: each operator in turn, ADD with 1.5, MUL with 1.5, or one of one input."""
    model = ModelWriter()
    graph = model.subgraph()
    value = graph.input("x", TensorType.FLOAT32, (LENGTH,))
    addend = graph.constant("addend", np.full(LENGTH, ADDEND, np.float32))
    for number, name in enumerate(operators):
        result = graph.tensor(f"t{number}", TensorType.FLOAT32, (LENGTH,))
        inputs = [value, addend] if name in ("ADD", "MUL", "SUB") else [value]
        graph.operator(BuiltinOperator[name], inputs, [result])
        value = result
    graph.output(value)
    return model.write()


def expected(operators: Sequence[str], x: Array) -> Array:
    """What the chain computes, in float32."""
    steps: dict[str, Callable[[Array], Array]] = {
        "ADD": lambda value: value + np.float32(ADDEND),
        "MUL": lambda value: value * np.float32(ADDEND),
        "SUB": lambda value: value - np.float32(ADDEND),
        "NEG": np.negative,
        "ABS": np.abs,
        "FLOOR": np.floor,
    }
    value = x.astype(np.float32)
    for name in operators:
        value = steps[name](value)
    return value
