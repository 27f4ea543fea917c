"""What a model's tensors are: the worker declares it, everybody else checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from model_loader_wire.causes import printable
from model_loader_wire.data_types import DataType

if TYPE_CHECKING:
    # Not loaded by a worker that was asked for no device.
    from model_loader_wire.delegation import Delegation

NAME_LENGTH = 1024
TENSORS_PER_SIGNATURE = 4096
SIGNATURES = 256
RANK = 32


class BadDescription(ValueError):
    """A declaration that cannot be: the worker is broken or hostile."""


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """One input or output.

    ``dimensions``: None where even the rank is known only after the run; a None within it where
    that size is known only at run time. ``byte_length``: None unless all sizes are known and
    elements have one size.
    """

    name: str
    data_type: DataType
    dimensions: tuple[int | None, ...] | None
    byte_length: int | None

    @property
    def is_static(self) -> bool:
        """Whether the tensor always has the same number of bytes."""
        return self.byte_length is not None

    def accepts(self, dimensions: tuple[int, ...]) -> bool:
        """Whether a tensor of these dimensions fits this declaration."""
        if self.dimensions is None:
            return True
        return len(dimensions) == len(self.dimensions) and all(
            declared is None or declared == size
            for declared, size in zip(self.dimensions, dimensions, strict=True)
        )


@dataclass(frozen=True, slots=True)
class SignatureDescription:
    """Inputs and outputs of one way to call the model; the name of the default one is ``""``."""

    name: str
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A loaded model: signature 0 is the default (the primary subgraph, by tensor names)."""

    signatures: tuple[SignatureDescription, ...]
    runtime: str
    """Runtime and version, for example ``"litert 2.3.0"``."""
    kernels: str
    """``"xnnpack"`` or ``"builtin"``: which kernels run, as far as the runtime lets it be told."""
    note: str = ""
    """Why the kernels are not the usual ones, if they are not."""
    threads: int = 1
    keeps_state: bool = False
    """Whether answers may depend on the calls before; a model of that kind cannot be replaced by
    another load of it."""
    delegation: Delegation | None = None
    """Which device runs what; None for a model that no device was asked for."""

    def with_state(self, keeps_state: bool) -> ModelDescription:
        """Return the description of a model that keeps state, or keeps none."""
        return replace(self, keeps_state=keeps_state)

    def with_delegation(self, delegation: Delegation | None) -> ModelDescription:
        """Return the description with another report on devices."""
        return replace(self, delegation=delegation)


def tensor_to_values(tensor: TensorDescription) -> dict[str, object]:
    """Turn a tensor's description into JSON-able values; -1 stands for an unknown size."""
    dimensions = tensor.dimensions
    return {
        "name": tensor.name,
        "type": int(tensor.data_type),
        "dimensions": None
        if dimensions is None
        else [-1 if size is None else size for size in dimensions],
        "bytes": tensor.byte_length,
    }


def model_to_values(model: ModelDescription) -> dict[str, object]:
    """Turn a description into JSON-able values for the control socket."""
    delegation = model.delegation
    return {
        **({} if delegation is None else {"delegation": delegation.to_values()}),
        "runtime": model.runtime,
        "kernels": model.kernels,
        "note": model.note,
        "threads": model.threads,
        "keeps_state": model.keeps_state,
        "signatures": [
            {
                "name": signature.name,
                "inputs": [tensor_to_values(tensor) for tensor in signature.inputs],
                "outputs": [tensor_to_values(tensor) for tensor in signature.outputs],
            }
            for signature in model.signatures
        ],
    }


def tensor_from_values(values: object) -> TensorDescription:
    """Read one tensor; raises BadDescription for anything a true worker would not declare."""
    fields = _mapping(values)
    name = _text(fields.get("name"), NAME_LENGTH)
    try:
        data_type = DataType(_number(fields.get("type")))
    except ValueError as error:
        raise BadDescription(f"tensor {name!r}: {error}") from None
    dimensions = None
    if fields.get("dimensions") is not None:
        sizes = _list(fields["dimensions"], RANK)
        dimensions = tuple(None if size == -1 else _number(size) for size in sizes)
    length = fields.get("bytes")
    byte_length = None if length is None else _number(length)
    element = data_type.element_size
    # Zeros left out, as NumPy counts: no array could have such a shape, even without elements.
    if prod(size for size in dimensions or () if size) * (element or 1) >= 2**63:
        raise BadDescription(f"tensor {name!r}: {dimensions} are too large")
    if byte_length is not None and element is not None:
        if dimensions is None or None in dimensions:
            raise BadDescription(f"tensor {name!r} has a byte length but no known dimensions")
        if prod(size or 0 for size in dimensions) * element != byte_length:
            raise BadDescription(f"tensor {name!r}: {byte_length} bytes do not fit {dimensions}")
    known = dimensions is not None and None not in dimensions
    if byte_length is None and element is not None and known:
        raise BadDescription(f"tensor {name!r} of known size declares no byte length")
    return TensorDescription(name, data_type, dimensions, byte_length)


def model_from_values(values: object) -> ModelDescription:
    """Read a worker's declaration; raises BadDescription for what it may not say."""
    fields = _mapping(values)
    signatures = []
    for item in _list(fields.get("signatures"), SIGNATURES):
        signature = _mapping(item)
        sides = [
            tuple(
                tensor_from_values(tensor)
                for tensor in _list(signature.get(side), TENSORS_PER_SIGNATURE)
            )
            for side in ("inputs", "outputs")
        ]
        for tensors in sides:
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise BadDescription("two tensors of one signature have the same name")
        signatures.append(SignatureDescription(_text(signature.get("name"), NAME_LENGTH), *sides))
    if not signatures or len({signature.name for signature in signatures}) != len(signatures):
        raise BadDescription("a model declares one default signature and distinct named ones")
    return ModelDescription(
        tuple(signatures),
        runtime=_text(fields.get("runtime"), 100),
        kernels=_text(fields.get("kernels"), 100),
        note=_text(fields.get("note"), 1000),
        threads=_number(fields.get("threads")),
        keeps_state=_yes_or_no(fields.get("keeps_state")),
        delegation=_delegation(fields.get("delegation")),
    )


def _delegation(values: object) -> Delegation | None:
    if values is None:
        return None
    from model_loader_wire.delegation import BadDelegation, delegation_from_values

    try:
        return delegation_from_values(values)
    except BadDelegation as error:
        raise BadDescription(f"the report on devices: {error}") from None


def _mapping(values: object) -> Mapping[str, object]:
    if not isinstance(values, dict):
        raise BadDescription("an object was expected")
    return values


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadDescription("true or false was expected")
    return value


def _list(values: object, most: int) -> list[object]:
    if not isinstance(values, list):
        raise BadDescription("a list was expected")
    if len(values) > most:
        raise BadDescription(f"{len(values)} items are more than {most}")
    return values


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        kind = value if isinstance(value, int | float) else type(value).__name__
        raise BadDescription(f"{str(kind)[:40]} is no count")
    return value


def _text(value: object, length: int) -> str:
    if not isinstance(value, str) or len(value) > length:
        raise BadDescription(f"a text of at most {length} characters was expected")
    return printable(value, length)
