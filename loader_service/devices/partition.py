"""A partition: nodes that one device runs together, and the tensors at its border."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loader_service.devices.model_view import ModelView


@dataclass(frozen=True, slots=True)
class Partition:
    """In the order of the file, in which they can run."""

    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    """Tensors that come from outside, constants not counted, in order of their first use."""
    outputs: tuple[int, ...]
    """Tensors that others or the model's caller need, in order of the nodes that compute them."""


def partition_of(model: ModelView, nodes: Iterable[int]) -> Partition:
    """Find the border of a set of nodes."""
    chosen = tuple(sorted(nodes))
    inside = set(chosen)
    computed = {tensor for index in chosen for tensor in model.nodes[index].outputs if tensor >= 0}
    needed = {tensor for tensor in model.outputs if tensor >= 0}
    for node in model.nodes:
        if node.index not in inside:
            needed.update(tensor for tensor in node.inputs if tensor >= 0)
    inputs = {
        tensor: None
        for index in chosen
        for tensor in model.nodes[index].inputs
        if tensor >= 0 and tensor not in computed and not model.tensors[tensor].is_constant
    }
    outputs = {
        tensor: None
        for index in chosen
        for tensor in model.nodes[index].outputs
        if tensor in needed
    }
    return Partition(chosen, tuple(inputs), tuple(outputs))
