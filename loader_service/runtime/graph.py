"""One subgraph of an interpreter: the shapes of its inputs, and whether it can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from loader_service.runtime.failures import InvalidInput
from loader_service.runtime.native import NativeInterpreter
from loader_service.runtime.tensor_memory import Place

_LARGEST_SIZE = 2**31 - 1


class Graph:
    """A subgraph; all signatures that run it share its tensors, and so its shapes.

    Native errors pass through; after one the graph is not ``allocated`` until shapes are set that
    can be prepared.
    """

    def __init__(self, native: NativeInterpreter, subgraph: int, inputs: Iterable[int]) -> None:
        self._native = native
        self._subgraph = subgraph
        self.is_primary = subgraph == 0
        # The call that a plain program makes for the primary subgraph is the one without a number.
        self._allocated_as = -1 if self.is_primary else subgraph
        self.allocated = False
        self.answered: int | None = None
        """The signature whose outputs lie in the graph's tensors, if any do."""
        self.dimensions: dict[int, tuple[int, ...]] = {
            tensor: tuple(native.TensorSize(tensor, subgraph).tolist()) for tensor in inputs
        }

    def has(self, places: Sequence[Place], shapes: Sequence[tuple[int, ...]]) -> bool:
        """Whether the graph is prepared for exactly these shapes."""
        dimensions = self.dimensions
        if not self.allocated or len(places) != len(shapes):
            return False
        for place, shape in zip(places, shapes, strict=True):
            if dimensions.get(place.tensor) != shape:
                return False
        return True

    def allocate(self) -> None:
        """Prepare the operators for the present shapes."""
        self.allocated = False
        self.answered = None
        self._native.AllocateTensors(self._allocated_as)
        self.allocated = True

    def reshape(self, places: Sequence[Place], shapes: Sequence[tuple[int, ...]]) -> None:
        """Give the inputs these shapes and prepare; raises InvalidInput for contradictory ones."""
        wanted: dict[int, tuple[int, ...]] = {}
        for place, shape in zip(places, shapes, strict=True):
            if wanted.setdefault(place.tensor, shape) != shape:
                raise InvalidInput("two inputs that are one tensor have different shapes")
            if any(size > _LARGEST_SIZE for size in shape):
                raise InvalidInput(f"{shape} has a size above {_LARGEST_SIZE}")
        self.allocated = False
        self.answered = None
        for tensor, shape in wanted.items():
            if self.dimensions.pop(tensor, None) != shape:
                sizes = np.array(shape, np.int32)
                self._native.ResizeInputTensor(tensor, sizes, False, self._subgraph)
            self.dimensions[tensor] = shape
        self.allocate()

    def run(self, signature: int) -> None:
        """Run the graph for a signature, and remember whose answer it holds."""
        self.answered = None
        self._native.Invoke(self._subgraph)
        self.answered = signature
