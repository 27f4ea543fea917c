"""How much an operator computes, roughly: what a split is weighed by."""

from __future__ import annotations

from loader_service.devices.model_view import ModelView, NodeView, TensorView

_WITH_WEIGHTS = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1}
"""Which input holds the weights, of operators that use all of them for each place."""


def work_of(model: ModelView, node: NodeView) -> float:
    """Return about how many multiplications and additions an operator takes."""
    outputs = [model.tensors[index] for index in node.outputs if index >= 0]
    written = sum(tensor.elements for tensor in outputs)
    place = _WITH_WEIGHTS.get(node.operator)
    if place is not None and (weights := _input(model, node, place)) is not None:
        channels = weights.shape[0] if weights.shape else 1
        return float(written * max(1, weights.elements // max(1, channels)))
    if node.operator == "DEPTHWISE_CONV_2D" and (weights := _input(model, node, 1)) is not None:
        channels = weights.shape[-1] if weights.shape else 1
        return float(written * max(1, weights.elements // max(1, channels)))
    if node.operator == "BATCH_MATMUL" and (left := _input(model, node, 0)) is not None:
        return float(written * max(1, left.shape[-1] if left.shape else 1))
    return float(max(1, written))


def _input(model: ModelView, node: NodeView, place: int) -> TensorView | None:
    index = node.inputs[place] if place < len(node.inputs) else -1
    return model.tensors[index] if index >= 0 else None
