"""The least memory that a model must have, against the limit, before anything is allocated.

A lower bound: an operator needs its inputs and outputs at one time, whatever else shares memory.
Only what the file fixes is counted: inputs of the model whose shape is not open, and what follows
from them and from constants. Shapes of other tensors are claims that the runtime computes anew.
"""

from __future__ import annotations

from loader_service.runtime.failures import LimitReached
from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import ELEMENT_BITS, TensorType
from loader_service.runtime.verifier.graph import Model
from loader_service.runtime.verifier.look import Look, Shape, known_shape
from loader_service.runtime.verifier.tensors import byte_length

_SHAPE_AT = {Op.BROADCAST_TO: 1, Op.FILL: 0}
"""Operators whose output has the shape that a constant input gives, by that input's position."""

_SAME_SHAPE = frozenset(
    (
        Op.ABS, Op.CEIL, Op.COS, Op.ELU, Op.EXP, Op.FLOOR, Op.LOG, Op.NEG, Op.ROUND, Op.RSQRT,
        Op.SIN, Op.SQRT, Op.SQUARE, Op.TANH, Op.SOFTMAX, Op.LOGISTIC,
    )
)  # fmt: skip
"""Operators whose output has the shape of their input."""


def check_memory(model: Model, memory_bytes: int) -> None:
    """Compare the primary subgraph's needs with the limit. Raises LimitReached."""
    graph = model.subgraphs[0]
    known: dict[int, int] = {}
    shapes: dict[int, Shape] = {}
    for index in graph.inputs:
        shape, size = known_shape(model, graph.tensors[index]), byte_length(graph.tensors[index])
        if shape is not None and size is not None:
            shapes[index], known[index] = shape, size
    _compare(sum(known[index] for index in set(known)), "the model's inputs", memory_bytes)
    for operator in graph.operators:
        if not operator.inputs or len(operator.outputs) != 1:
            continue
        shape = None
        if operator.code in _SHAPE_AT:
            shape = Look(model, operator).constant(_SHAPE_AT[Op(operator.code)])
        elif operator.code in _SAME_SHAPE:
            shape = shapes.get(operator.inputs[0])
        if shape is None:
            continue
        output = graph.tensors[operator.outputs[0]]
        elements, bits = 1, ELEMENT_BITS[TensorType(output.type)]
        for length in shape:
            elements *= length
        if bits is None:
            continue
        shapes[output.index], known[output.index] = shape, elements * bits // 8
        if operator.code in _SHAPE_AT:
            _compare(known[output.index], operator.place, memory_bytes)


def _compare(needed: int, who: str, memory_bytes: int) -> None:
    if needed > memory_bytes:
        raise LimitReached(
            f"{who} needs {needed} bytes at least, more than memory_bytes={memory_bytes} allows",
            "memory_bytes",
            needed,
            memory_bytes,
        )
