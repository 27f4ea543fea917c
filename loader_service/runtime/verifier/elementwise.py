"""Rules for operators that go through their inputs element by element, behind a variable.

LiteRT 2.3.0 makes room for what follows a READ_VARIABLE by the shapes that the file has, and its
kernels then write what the inputs' shapes make: found by fuzzing, as heap corruption.
"""

from __future__ import annotations

from collections.abc import Iterator

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.graph import Subgraph
from loader_service.runtime.verifier.look import Look, Shape

_UNARY = frozenset(
    (
        Op.ABS, Op.CEIL, Op.COS, Op.ELU, Op.EXP, Op.FLOOR, Op.GELU, Op.HARD_SWISH, Op.LEAKY_RELU,
        Op.LOG, Op.LOGISTIC, Op.NEG, Op.RELU, Op.RELU6, Op.RELU_0_TO_1, Op.RELU_N1_TO_1, Op.ROUND,
        Op.RSQRT, Op.SIGN, Op.SIN, Op.SOFTMAX, Op.SQRT, Op.SQUARE, Op.TANH, Op.QUANTIZE,
        Op.DEQUANTIZE, Op.CAST,
    )
)  # fmt: skip
_BINARY = frozenset(
    (
        Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MAXIMUM, Op.MINIMUM, Op.SQUARED_DIFFERENCE, Op.PRELU,
        Op.POW, Op.FLOOR_DIV, Op.FLOOR_MOD,
    )
)  # fmt: skip


def reads_variables(graph: Subgraph) -> bool:
    """Whether the rules of this module hold in a subgraph."""
    return any(operator.code == Op.READ_VARIABLE for operator in graph.operators)


def broken_elements(look: Look) -> Iterator[str]:
    """Yield, in words, where an output's shape is not that of its inputs, as far as both are known.

    Inputs are broadcast: shapes end at their last dimensions, and a size of 1 goes with any.
    """
    code = look.operator.code
    if code not in _UNARY and code not in _BINARY:
        return
    shapes = [look.dimensions(position) for position in range(1 if code in _UNARY else 2)]
    result = look.output_dimensions()
    if result is None:
        return
    for position, shape in enumerate(shapes):
        if shape is not None and not _fits(shape, result):
            yield f"input {position} has the shape {shape}, and its output {result}"


def _fits(shape: Shape, result: Shape) -> bool:
    if len(shape) > len(result):
        return False
    ends = result[len(result) - len(shape) :]
    return all(
        size in (-1, 1, there) or there == -1 for size, there in zip(shape, ends, strict=True)
    )
