"""From a model's bytes, which the verifier has passed, to what devices see of it."""

from __future__ import annotations

from loader_service.devices.model_view import ModelView, NodeView, TensorView
from loader_service.devices.partitioner import STATEFUL
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.verifier.graph import Model, Operator, Tensor

_CUSTOM = int(BuiltinOperator.CUSTOM)
_STATELESS_CUSTOM = frozenset({"TFLite_Detection_PostProcess"})
"""Of the custom operators that the runtimes carry, those that are known to hold nothing."""


def read_view(data: bytes) -> ModelView:
    """Read the primary subgraph. Raises InvalidModel or UnsupportedModel, as the verifier does."""
    model = Model(data)
    graph = model.subgraphs[0]
    return ModelView(
        tuple(_tensor(tensor) for tensor in graph.tensors),
        tuple(_node(operator) for operator in graph.operators),
        graph.inputs,
        graph.outputs,
        len(model.subgraphs),
        all(
            not any(tensor.is_variable for tensor in each.tensors)
            and not any(_holds_state(operator) for operator in each.operators)
            for each in model.subgraphs
        ),
        data,
    )


def _tensor(tensor: Tensor) -> TensorView:
    quantization = tensor.record["quantization"]
    scales = quantization is not None and quantization["scale"]
    return TensorView(
        tensor.index,
        tensor.type,
        tensor.shape,
        tensor.data,
        tensor.is_variable,
        bool(scales and scales.length),
    )


def _node(operator: Operator) -> NodeView:
    return NodeView(
        operator.index,
        operator.name,
        operator.inputs,
        operator.outputs,
        operator.version,
        operator.code == _CUSTOM,
    )


def _holds_state(operator: Operator) -> bool:
    if operator.code == _CUSTOM:
        return operator.name not in _STATELESS_CUSTOM
    return operator.name in STATEFUL
