"""What a model can be called with: the default signature, and the named ones.

The default signature is the primary subgraph by its tensors' names, in the model's order. A named
signature has names of its own and may run another subgraph; its tensors come in the runtime's
order, which is that of their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from loader_service.runtime.failures import UnsupportedModel
from loader_service.runtime.graph import Graph
from loader_service.runtime.naming import unique_names
from loader_service.runtime.native import Array, NativeInterpreter
from loader_service.runtime.tensor_memory import Place, has_memory, input_place, output_place
from model_loader_wire.description import (
    RANK,
    SIGNATURES,
    TENSORS_PER_SIGNATURE,
    SignatureDescription,
    TensorDescription,
)


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """One way to call the model: names, and the tensors behind them, in the same order."""

    name: str
    graph: Graph
    input_names: tuple[str, ...]
    inputs: tuple[Place, ...]
    output_names: tuple[str, ...]
    outputs: tuple[Place, ...]
    scalars: tuple[tuple[Place, Array], ...]
    """The inputs that are staged outside the interpreter until it runs."""
    input_dimensions: tuple[tuple[int | None, ...], ...]

    @property
    def resizable(self) -> bool:
        """Whether the size of an input is open until the caller gives it."""
        return any(None in dimensions for dimensions in self.input_dimensions)

    def writes_inputs_of(self, other: Signature) -> bool:
        """Whether a call of this one leaves nothing in the inputs of another that it would use."""
        if self.graph is not other.graph:
            return True
        return {place.tensor for place in other.inputs} <= {place.tensor for place in self.inputs}

    def largest_tensor(self, native: NativeInterpreter) -> int:
        """Bytes of the largest input or output, at the inputs' present shapes."""
        sizes = [
            place.element.byte_length(prod(self.graph.dimensions.get(place.tensor, ())))
            for place in self.inputs
        ]
        sizes += [
            place.element.byte_length(
                prod(native.TensorSize(place.tensor, place.subgraph).tolist())
            )
            for place in self.outputs
        ]
        return max(sizes, default=0)


def read_signatures(native: NativeInterpreter) -> list[Signature]:
    """Find the signatures; the default one is first, its name is empty.

    Raises UnsupportedModel where there are more, or larger, than a description can hold.
    """
    found = [("", 0, *_default_tensors(native))]
    definitions = {name: tensors for name, tensors in native.GetSignatureDefs().items() if name}
    names = unique_names(definitions, "signature")
    for name, (key, tensors) in zip(names, definitions.items(), strict=True):
        subgraph = int(native.GetSubgraphIndexFromSignature(key))
        inputs, outputs = list(tensors["inputs"].items()), list(tensors["outputs"].items())
        found.append((name, subgraph, inputs, outputs))
    if len(found) > SIGNATURES:
        raise UnsupportedModel(f"{len(found)} signatures are more than {SIGNATURES}")

    places: dict[tuple[int, int], Place] = {}
    graphs: dict[int, Graph] = {}
    tensors_of: dict[int, list[int]] = {}
    for _, subgraph, inputs, _ in found:
        tensors_of.setdefault(subgraph, []).extend(tensor for _, tensor in inputs)
    for subgraph, numbers in tensors_of.items():
        graphs[subgraph] = Graph(native, subgraph, numbers)
        for tensor in numbers:
            places[subgraph, tensor] = input_place(native, subgraph, tensor)

    signatures = []
    for name, subgraph, inputs, outputs in found:
        if max(len(inputs), len(outputs)) > TENSORS_PER_SIGNATURE:
            raise UnsupportedModel(f"a signature has more than {TENSORS_PER_SIGNATURE} tensors")
        input_places = tuple(places[subgraph, tensor] for _, tensor in inputs)
        signatures.append(
            Signature(
                name,
                graphs[subgraph],
                tuple(unique_names((name for name, _ in inputs), "input")),
                input_places,
                tuple(unique_names((name for name, _ in outputs), "output")),
                tuple(output_place(native, subgraph, tensor) for _, tensor in outputs),
                tuple((place, place.scalar) for place in input_places if place.scalar is not None),
                tuple(_declared(native, place) for place in input_places),
            )
        )
    return signatures


def describe(native: NativeInterpreter, signature: Signature) -> SignatureDescription:
    """Describe a signature whose graph was allocated (if it can be, at its first shapes)."""
    inputs = tuple(
        _tensor(name, place, dimensions)
        for name, place, dimensions in zip(
            signature.input_names, signature.inputs, signature.input_dimensions, strict=True
        )
    )
    outputs = tuple(
        _tensor(name, place, _output_dimensions(native, signature, place))
        for name, place in zip(signature.output_names, signature.outputs, strict=True)
    )
    return SignatureDescription(signature.name, inputs, outputs)


def _default_tensors(
    native: NativeInterpreter,
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    def named(tensors: Iterable[int]) -> list[tuple[str, int]]:
        return [(_tensor_name(native, tensor), tensor) for tensor in tensors]

    return named(native.InputIndices().tolist()), named(native.OutputIndices().tolist())


def _tensor_name(native: NativeInterpreter, tensor: int) -> str:
    try:
        return native.TensorName(tensor, 0)
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "replace")


def _declared(native: NativeInterpreter, place: Place) -> tuple[int | None, ...]:
    sizes: list[int] = native.TensorSizeSignature(place.tensor, place.subgraph).tolist()
    if len(sizes) > RANK:
        raise UnsupportedModel(f"a tensor of rank {len(sizes)} is above {RANK}")
    return tuple(None if size < 0 else size for size in sizes)


def _output_dimensions(
    native: NativeInterpreter, signature: Signature, place: Place
) -> tuple[int | None, ...] | None:
    """Say only what will hold in every run; None where even the rank is open.

    Where the model names open sizes it is believed, unless its own first shape is another. Where it
    names none, its shape is that of the first shapes of the inputs, or a mere placeholder if the
    tensor gets its memory in the run.
    """
    declared = _declared(native, place)
    if None in declared:
        present = native.TensorSize(place.tensor, place.subgraph).tolist()
        fits = len(present) == len(declared) and all(
            size in (None, now) for size, now in zip(declared, present, strict=True)
        )
        return declared if fits else None
    if signature.resizable or not signature.graph.allocated:
        return None
    if place.element.is_string:
        return declared or None
    return declared if has_memory(native, place) else None


def _tensor(
    name: str, place: Place, dimensions: tuple[int | None, ...] | None
) -> TensorDescription:
    element = place.element
    byte_length = None
    if dimensions is not None and not element.is_string:
        known = [size for size in dimensions if size is not None]
        if len(known) == len(dimensions):
            byte_length = element.byte_length(prod(known))
    return TensorDescription(name, element.data_type, dimensions, byte_length)
