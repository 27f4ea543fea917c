"""Applies the operators' own rules, which no structure check can know."""

from __future__ import annotations

from loader_service.runtime.failures import InvalidModel
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.verifier.elementwise import broken_elements, reads_variables
from loader_service.runtime.verifier.graph import Model
from loader_service.runtime.verifier.look import Look, Rule
from loader_service.runtime.verifier.lookups import LOOKUPS
from loader_service.runtime.verifier.quantization import broken_ratio
from loader_service.runtime.verifier.shapes import SHAPES
from loader_service.runtime.verifier.slices import SLICES
from loader_service.runtime.verifier.tensors import MAXIMUM_RANK
from loader_service.runtime.verifier.types import broken_types
from loader_service.runtime.verifier.windows import WINDOWS

RULES: dict[int, Rule] = {
    int(code): rule for table in (WINDOWS, SHAPES, SLICES, LOOKUPS) for code, rule in table.items()
}
"""By the number of a builtin operator."""


def check_rules(model: Model) -> None:
    """Check every operator by its rule, and the ranks. Raises InvalidModel."""
    for graph in model.subgraphs:
        deep = {tensor.index for tensor in graph.tensors if len(tensor.shape) > MAXIMUM_RANK}
        stateful = reads_variables(graph)
        for operator in graph.operators:
            if deep and operator.code != BuiltinOperator.CUSTOM:
                for index in (*operator.inputs, *operator.outputs):
                    if index in deep:
                        raise InvalidModel(
                            f"{operator.place}: {model.tensor_place(graph, index)} has more than "
                            f"{MAXIMUM_RANK} dimensions"
                        )
            broken = next(broken_types(operator), None)
            rule = RULES.get(operator.code)
            if broken is None:
                broken = next(broken_ratio(model.data, operator), None)
            if broken is None and stateful:
                broken = next(broken_elements(Look(model, operator)), None)
            if broken is None and rule is not None:
                broken = next(rule(Look(model, operator)), None)
            if broken is not None:
                raise InvalidModel(f"{operator.place}: {broken}")
