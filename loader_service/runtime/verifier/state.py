"""Whether a model remembers: whether its answers may depend on the calls before."""

from __future__ import annotations

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.graph import Model

KEEPERS = frozenset(
    (
        Op.VAR_HANDLE,
        Op.READ_VARIABLE,
        Op.ASSIGN_VARIABLE,
        Op.CALL_ONCE,
        Op.HASHTABLE,
        Op.HASHTABLE_FIND,
        Op.HASHTABLE_IMPORT,
        Op.HASHTABLE_SIZE,
        # A generator of random numbers goes on where it was.
        Op.RANDOM_STANDARD_NORMAL,
        Op.RANDOM_UNIFORM,
        Op.MULTINOMIAL,
        Op.STABLEHLO_RNG_BIT_GENERATOR,
    )
)
"""Operators with something that outlives a call; others have it in variable tensors."""


def keeps_state(model: Model) -> bool:
    """Whether any subgraph has a variable tensor or one of `KEEPERS`.

    The custom operators that the runtimes carry keep nothing.
    """
    return any(
        any(tensor.is_variable for tensor in graph.tensors)
        or any(operator.code in KEEPERS for operator in graph.operators)
        for graph in model.subgraphs
    )
