"""A signature that is called again and again with the same shapes, with little in between.

Made after a run that succeeded, and good until the model is called in any other way. What was
looked up and checked then is not looked up again; only the addresses are, as ``tensor_memory``
wants it, and the outputs' shapes, which a model may change by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loader_service.runtime.native import Array, NativeInterpreter
from loader_service.runtime.signatures import Signature
from loader_service.runtime.tensor_memory import Place


class SteadySignature:
    """A prepared signature whose tensors can be read and written where they lie."""

    def __init__(
        self,
        native: NativeInterpreter,
        inputs: Sequence[Place],
        outputs: Sequence[tuple[Place, tuple[int, ...]]],
        run: Callable[[], None],
    ) -> None:
        """Take what `steady_signature` found out; `outputs` with the shapes that they have."""
        self.run = run
        self._tensor = native.tensor
        self._inputs = [(place.tensor, place.subgraph) for place in inputs]
        self._outputs = [(place.tensor, place.subgraph, shape) for place, shape in outputs]

    def inputs(self) -> list[Array]:
        """Return the inputs' memory; valid until `run` returns."""
        tensor = self._tensor
        return [tensor(None, index, subgraph) for index, subgraph in self._inputs]

    def outputs(self) -> list[Array] | None:
        """Return the outputs' memory after `run`; None if a shape is not what it was."""
        tensor = self._tensor
        arrays = []
        for index, subgraph, shape in self._outputs:
            array = tensor(None, index, subgraph)
            if array.shape != shape or array.flags.owndata:
                return None
            arrays.append(array)
        return arrays


def steady_signature(
    native: NativeInterpreter, signature: Signature, run: Callable[[], None]
) -> SteadySignature | None:
    """Look at a signature that has just run; ``run`` runs it again or raises `RuntimeFailure`.

    None unless all its tensors are plain memory of the interpreter's: not strings, elements that
    Python's buffers do not know, scalars (they are copied), nor tensors without elements (they have
    no memory).
    """
    if len({place.tensor for place in signature.inputs}) < len(signature.inputs):
        return None
    places = signature.inputs + signature.outputs
    if not all(place.element.buffered for place in places):
        return None
    shapes = [_shape(native, place) for place in places]
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    outputs = list(zip(signature.outputs, known[len(signature.inputs) :], strict=True))
    return SteadySignature(native, signature.inputs, outputs, run)


def _shape(native: NativeInterpreter, place: Place) -> tuple[int, ...] | None:
    """Return the shape of a tensor that lies in memory, else None."""
    try:
        array = native.tensor(None, place.tensor, place.subgraph)
    except ValueError:
        return None
    shape: tuple[int, ...] = array.shape
    return shape if shape and 0 not in shape and not array.flags.owndata else None
