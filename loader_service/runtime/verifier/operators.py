"""Whether the policy allows a model's operators and types; a refusal names the one that it is."""

from __future__ import annotations

from loader_service.runtime.failures import InvalidModel, UnsupportedModel
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.calls import CALLERS
from loader_service.runtime.verifier.graph import Model, Operator, Subgraph
from loader_service.runtime.verifier.policy import Profile

_NOT_DATA = (TensorType.STRING, TensorType.RESOURCE, TensorType.VARIANT)


def check_operators(model: Model, profile: Profile) -> None:
    """Check operators and types by `profile`. Raises UnsupportedModel, InvalidModel."""
    for graph in model.subgraphs if profile.every_subgraph else model.subgraphs[:1]:
        for operator in graph.operators:
            _check(operator, profile)
        if not profile.strings:
            _check_types(model, graph, profile)


def _check(operator: Operator, profile: Profile) -> None:
    if operator.code == BuiltinOperator.CUSTOM:
        if operator.name not in profile.custom:
            if operator.name.startswith("Flex"):
                why = "Select TensorFlow op, which no runtime here carries"
            elif profile.custom:
                why = f"unresolved custom op: {operator.name}"
            else:
                why = f"the profile {profile.name!r} allows no custom operator"
            raise UnsupportedModel(f"{operator.place}: {why}")
        return
    latest = profile.builtin.get(operator.code)  # type: ignore[call-overload]
    if latest is None:
        if operator.code in CALLERS and profile.every_subgraph:
            rule = "no operator that runs another subgraph"
        else:
            rule = "no such operator"
        raise UnsupportedModel(f"{operator.place}: the profile {profile.name!r} allows {rule}")
    if operator.version < 1:
        raise InvalidModel(f"{operator.place}: there is no version {operator.version}")
    if operator.version > latest:
        raise UnsupportedModel(
            f"{operator.place}: version {operator.version} came after {latest}, the latest that "
            f"the profile {profile.name!r} allows"
        )


def _check_types(model: Model, graph: Subgraph, profile: Profile) -> None:
    for tensor in graph.tensors:
        if tensor.type in _NOT_DATA:
            place = model.tensor_place(graph, tensor.index)
            raise UnsupportedModel(
                f"{place}: the profile {profile.name!r} allows no "
                f"{TensorType(tensor.type).name.lower()} tensor"
            )
        if tensor.is_variable:
            place = model.tensor_place(graph, tensor.index)
            raise UnsupportedModel(f"{place}: the profile {profile.name!r} allows no variable")
