"""What a rule sees of one operator: options, shapes, and constants among its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loader_service.runtime.verifier.edges import LEFT_OUT
from loader_service.runtime.verifier.graph import Model, Operator, Tensor
from loader_service.runtime.verifier.tensors import constant

Shape = tuple[int, ...]


class Look:
    """One operator of a model whose edges were checked."""

    __slots__ = ("model", "operator")

    def __init__(self, model: Model, operator: Operator) -> None:
        self.model = model
        self.operator = operator

    def option(self, name: str) -> int:
        """An option; 0 where the operator has no options, as the runtimes' own tables have."""
        options = self.operator.options
        value = None if options is None else options.get(name)
        return 0 if value is None else int(value)

    def option_list(self, name: str) -> Shape:
        """An option that is a list."""
        options = self.operator.options
        span = None if options is None else options.get(name)
        return self.model.structure.integers(span, self.operator.place)

    def has(self, position: int) -> bool:
        """Whether there is an input at that position."""
        inputs = self.operator.inputs
        return position < len(inputs) and inputs[position] != LEFT_OUT

    def input(self, position: int) -> Tensor:
        """An input that `has` has found."""
        return self.operator.graph.tensors[self.operator.inputs[position]]

    def shape(self, position: int) -> Shape | None:
        """An input's shape; None if it is known only at run time, or there is no such input."""
        return known_shape(self.model, self.input(position)) if self.has(position) else None

    def output_shape(self, position: int = 0) -> Shape | None:
        """An output's shape as the file has it."""
        outputs = self.operator.outputs
        if position >= len(outputs):
            return None
        return known_shape(self.model, self.operator.graph.tensors[outputs[position]])

    def dimensions(self, position: int) -> Shape | None:
        """An input's shape with -1 where a size is open; None where nothing of it is fixed."""
        if not self.has(position):
            return None
        return dimensions(self.model, self.input(position))

    def output_dimensions(self, position: int = 0) -> Shape | None:
        """The same of an output."""
        outputs = self.operator.outputs
        if position >= len(outputs):
            return None
        return dimensions(self.model, self.operator.graph.tensors[outputs[position]])

    def rank(self, position: int) -> int | None:
        """An input's number of dimensions, where the file tells."""
        if not self.has(position):
            return None
        tensor = self.input(position)
        # No shape at all stands for a scalar and for a rank known only at run time.
        return len(tensor.shape) if tensor.shape or tensor.data is not None else None

    def constant(self, position: int) -> Shape | None:
        """The integers of a constant input; None if it is none."""
        if not self.has(position):
            return None
        graph = self.operator.graph
        return constant(self.model, graph, self.operator.inputs[position])


Rule = Callable[[Look], Iterator[str]]
"""Yields, in words, what an operator breaks."""


def known_shape(model: Model, tensor: Tensor) -> Shape | None:
    """A tensor's shape if the file fixes it."""
    shape = dimensions(model, tensor)
    return None if shape is None or -1 in shape else shape


def dimensions(model: Model, tensor: Tensor) -> Shape | None:
    """A tensor's shape with -1 where a size is open; None where nothing of it is fixed."""
    shape = tensor.shape
    if tensor.data is not None:
        return shape
    # No shape at all stands for a scalar and for a rank known only at run time.
    if not shape:
        return None
    signature = tensor.record["shape_signature"]
    if not signature:
        return shape
    if signature.length != len(shape):
        return None
    declared = model.structure.integers(signature, "shape_signature")
    return tuple(-1 if wanted < 0 else size for size, wanted in zip(shape, declared, strict=True))


def axis_broken(axis: int, rank: int | None, what: str = "axis") -> Iterator[str]:
    """An axis counts from either end of `rank` dimensions."""
    if rank is not None and not -rank <= axis < rank:
        yield f"{what} {axis} is out of range for {rank} dimensions"
