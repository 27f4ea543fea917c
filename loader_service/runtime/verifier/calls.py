"""Rules for subgraphs that run subgraphs: they exist, and none ends up in itself.

The runtimes prepare and run a called subgraph on the caller's stack, so a circle overflows it.
"""

from __future__ import annotations

from loader_service.runtime.failures import InvalidModel
from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.graph import Model, Operator

MAXIMUM_DEPTH = 64
"""Calls within calls; FlatBuffers' own verifier allows tables no deeper."""

_ONE = {
    Op.IF: ("then_subgraph_index", "else_subgraph_index"),
    Op.WHILE: ("cond_subgraph_index", "body_subgraph_index"),
    Op.STABLEHLO_WHILE: ("cond_subgraph_index", "body_subgraph_index"),
    Op.CALL: ("subgraph",),
    Op.CALL_ONCE: ("init_subgraph_index",),
    Op.STABLEHLO_COMPOSITE: ("decomposition_subgraph_index",),
    Op.STABLEHLO_REDUCE: ("body_subgraph_index",),
    Op.STABLEHLO_REDUCE_WINDOW: ("body_subgraph_index",),
    Op.STABLEHLO_SORT: ("comparator_subgraph_index",),
    Op.STABLEHLO_SCATTER: ("update_computation_subgraph_index",),
}
_MANY = {
    Op.STABLEHLO_CASE: "branch_subgraph_indices",
    Op.STABLEHLO_CUSTOM_CALL: "called_computations",
}
CALLERS = frozenset(_ONE) | frozenset(_MANY)


def check_calls(model: Model) -> None:
    """Check all calls. Raises InvalidModel."""
    called = {
        graph.index: [
            (operator, index)
            for operator in graph.operators
            if operator.code in CALLERS
            for index in _callees(model, operator)
        ]
        for graph in model.subgraphs
    }
    # Depth of each subgraph by its callees', leaves first; a circle never becomes a leaf.
    depths: dict[int, int] = {}
    waiting = [graph.index for graph in model.subgraphs]
    while waiting:
        ready = [graph for graph in waiting if all(i in depths for _, i in called[graph])]
        if not ready:
            operator, index = next(
                (operator, index)
                for graph in waiting
                for operator, index in called[graph]
                if index in waiting
            )
            raise InvalidModel(f"{operator.place}: subgraph {index} calls itself in the end")
        for graph in ready:
            depths[graph] = 1 + max((depths[i] for _, i in called[graph]), default=0)
            if depths[graph] > MAXIMUM_DEPTH:
                raise InvalidModel(
                    f"subgraph {graph}: calls are nested deeper than {MAXIMUM_DEPTH}"
                )
        waiting = [graph for graph in waiting if graph not in depths]


def _callees(model: Model, operator: Operator) -> list[int]:
    options = operator.options
    if options is None:
        raise InvalidModel(f"{operator.place}: does not say which subgraph it calls")
    code = Op(operator.code)
    if code in _MANY:
        found = list(model.structure.integers(options.get(_MANY[code]), operator.place))
    else:
        found = [options.get(name, -1) for name in _ONE[code]]
    for index in found:
        if not 0 <= index < len(model.subgraphs):
            raise InvalidModel(f"{operator.place}: there is no subgraph {index} to call")
    return found
