"""What `inspect` tells about a model file: plain values, ready to be sent as JSON."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuantizationSummary:
    """real = scale × (stored − zero point); more than one scale are those of one dimension."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dimension: int
    count: int
    """How many scales there are; the tuples hold the first of them."""


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """An input or output as the file declares it."""

    name: str
    type: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...] | None
    """-1 for a dimension known only at run time; None where all are known."""
    quantization: QuantizationSummary | None


@dataclass(frozen=True, slots=True)
class SubgraphSummary:
    """One subgraph; the first is the primary one."""

    name: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    tensor_count: int
    operator_count: int


@dataclass(frozen=True, slots=True)
class OperatorSummary:
    """How often all subgraphs together use one operator in one version."""

    name: str
    version: int
    count: int
    custom: bool


@dataclass(frozen=True, slots=True)
class PortSummary:
    """An input or output of a signature: its name there, and the tensor behind it."""

    name: str
    tensor: TensorSummary


@dataclass(frozen=True, slots=True)
class SignatureSummary:
    """A named way to run a subgraph."""

    key: str
    subgraph: int
    inputs: tuple[PortSummary, ...]
    outputs: tuple[PortSummary, ...]


@dataclass(frozen=True, slots=True)
class MetadataSummary:
    """What the author wrote into the model's metadata; empty texts where nothing."""

    name: str
    description: str
    version: str
    author: str
    license: str
    minimum_parser_version: str


@dataclass(frozen=True, slots=True)
class AssociatedFileSummary:
    """A file packed behind the model."""

    name: str
    size: int
    """Bytes, as the archive declares them."""
    kind: str
    """`AssociatedFileType` by name; `UNKNOWN` where the metadata does not mention the file."""
    lines: tuple[str, ...]
    """The first lines, where it is text; all lines of a file of labels."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model file, read without running it."""

    size: int
    """Bytes of the whole file."""
    schema_version: int
    description: str
    subgraphs: tuple[SubgraphSummary, ...]
    operators: tuple[OperatorSummary, ...]
    signatures: tuple[SignatureSummary, ...]
    metadata_names: tuple[str, ...]
    metadata: MetadataSummary | None
    minimum_runtime_version: str
    """Empty where the file does not say."""
    associated_files: tuple[AssociatedFileSummary, ...]
    remarks: tuple[str, ...]
    """What was left out, and why: damage outside the model proper."""


def to_json(summary: ModelSummary) -> dict[str, object]:
    """The summary as dictionaries, lists and scalars that `json.dumps` takes.

    JSON has no number for infinity and "not a number": such a scale becomes its name as text.
    """
    value = _plain(summary)
    assert isinstance(value, dict)
    return value


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
