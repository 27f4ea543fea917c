"""Reads the facts about a model from its bytes, without a runtime.

This runs in a sandboxed worker, on bytes that nobody has checked: whatever they hold, the answer
is a summary of bounded size or `MalformedModel`. It checks what it follows, no more; whether the
runtime would take the model is the runtime's to say. All that is imported is imported at the top:
inside the sandbox no file can be opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from . import schema
from .flatbuffer import FlatBuffer, MalformedModel, TableReader
from .model_metadata import (
    associated_file_summaries,
    author_metadata,
    minimum_runtime_version,
)
from .schema_operators import BuiltinOperator
from .schema_tensor_types import TensorType
from .summary import (
    ModelSummary,
    OperatorSummary,
    PortSummary,
    QuantizationSummary,
    SignatureSummary,
    SubgraphSummary,
    TensorSummary,
)

MAXIMUM_SUBGRAPHS = 1000
MAXIMUM_SIGNATURES = 1000
MAXIMUM_PORTS = 1000
"""Inputs of one subgraph or signature, and outputs likewise."""
MAXIMUM_OPERATOR_CODES = 1000
MAXIMUM_METADATA = 1000
MAXIMUM_RANK = 64
SHOWN_SCALES = 16
"""Scales of a tensor quantized by channel that are shown; the rest is counted."""

_TYPE_NAMES = {int(tensor_type): tensor_type.name for tensor_type in TensorType}
_OPERATOR_NAMES = {int(operator): operator.name for operator in BuiltinOperator}


def inspect_model(data: bytes) -> ModelSummary:
    """The facts about the model file `data`.

    `MalformedModel`, naming place and rule, where the bytes are no TFLite model, contradict
    themselves, or hold more than the bounds of this module. Damage to metadata and packed files,
    of which a runtime takes no notice, is told in `ModelSummary.remarks` instead.
    """
    model = FlatBuffer(data, "model").root(schema.MODEL, schema.FILE_IDENTIFIER)
    _bounded(model, "subgraphs", MAXIMUM_SUBGRAPHS)
    remarks: list[str] = []
    metadata_buffers = dict(_metadata_entries(model))
    metadata, file_kinds = author_metadata(data, model, metadata_buffers, remarks)
    return ModelSummary(
        size=len(data),
        schema_version=model.integer("version"),
        description=model.text("description"),
        subgraphs=tuple(_subgraph(graph) for graph in model.children("subgraphs")),
        operators=_operators(model),
        signatures=_signatures(model),
        metadata_names=tuple(metadata_buffers),
        metadata=metadata,
        minimum_runtime_version=minimum_runtime_version(data, model, metadata_buffers),
        associated_files=associated_file_summaries(data, file_kinds, remarks),
        remarks=tuple(remarks),
    )


def _bounded(table: TableReader, name: str, maximum: int) -> None:
    """Refuse a vector that no honest model has."""
    length = table.length(name)
    if length > maximum:
        raise MalformedModel(f"{table.place}.{name}", f"{length} are more than {maximum}")


def _subgraph(graph: TableReader) -> SubgraphSummary:
    return SubgraphSummary(
        name=graph.text("name"),
        inputs=_ports(graph, "inputs"),
        outputs=_ports(graph, "outputs"),
        tensor_count=graph.length("tensors"),
        operator_count=graph.length("operators"),
    )


def _ports(graph: TableReader, name: str) -> tuple[TensorSummary, ...]:
    """The tensors that a subgraph's inputs or outputs name."""
    _bounded(graph, name, MAXIMUM_PORTS)
    return tuple(_tensor(graph.element("tensors", index)) for index in graph.integers(name))


def _tensor(tensor: TableReader) -> TensorSummary:
    _bounded(tensor, "shape", MAXIMUM_RANK)
    _bounded(tensor, "shape_signature", MAXIMUM_RANK)
    number = tensor.integer("type")
    signature = tensor.integers("shape_signature")
    return TensorSummary(
        name=tensor.text("name"),
        type=_TYPE_NAMES.get(number, f"TYPE_{number}"),
        shape=tensor.integers("shape"),
        shape_signature=signature if -1 in signature else None,
        quantization=_quantization(tensor.child("quantization")),
    )


def _quantization(quantization: TableReader | None) -> QuantizationSummary | None:
    """Scales and zero points; None for the empty table that converters like to write."""
    if quantization is None or quantization.length("scale") == 0:
        return None
    return QuantizationSummary(
        scale=tuple(float(scale) for scale in quantization.numbers("scale", SHOWN_SCALES)),
        zero_point=quantization.integers("zero_point", SHOWN_SCALES),
        dimension=quantization.integer("quantized_dimension"),
        count=quantization.length("scale"),
    )


def _operators(model: TableReader) -> tuple[OperatorSummary, ...]:
    """Operators by falling count, then by name."""
    _bounded(model, "operator_codes", MAXIMUM_OPERATOR_CODES)
    codes = [_operator_code(code) for code in model.children("operator_codes")]
    counts: Counter[tuple[str, int, bool]] = Counter()
    for graph in model.children("subgraphs"):
        for operator in graph.children("operators"):
            index = operator.integer("opcode_index")
            if index >= len(codes):
                raise MalformedModel(f"{operator.place}.opcode_index", f"only {len(codes)} codes")
            counts[codes[index]] += 1
    return tuple(
        OperatorSummary(name, version, count, custom)
        for (name, version, custom), count in sorted(
            counts.items(), key=lambda item: (-item[1], item[0])
        )
    )


def _operator_code(code: TableReader) -> tuple[str, int, bool]:
    """Name, version, and whether it is a custom operator."""
    number = max(code.integer("deprecated_builtin_code"), code.integer("builtin_code"))
    version = code.integer("version")
    if number == BuiltinOperator.CUSTOM:
        return code.text("custom_code"), version, True
    return _OPERATOR_NAMES.get(number, f"BUILTIN_{number}"), version, False


def _signatures(model: TableReader) -> tuple[SignatureSummary, ...]:
    _bounded(model, "signature_defs", MAXIMUM_SIGNATURES)
    signatures = []
    for definition in model.children("signature_defs"):
        index = definition.integer("subgraph_index")
        graph = model.element("subgraphs", index)
        signatures.append(
            SignatureSummary(
                key=definition.text("signature_key"),
                subgraph=index,
                inputs=_signature_ports(definition, "inputs", graph),
                outputs=_signature_ports(definition, "outputs", graph),
            )
        )
    return tuple(signatures)


def _signature_ports(
    definition: TableReader, name: str, graph: TableReader
) -> tuple[PortSummary, ...]:
    _bounded(definition, name, MAXIMUM_PORTS)
    return tuple(
        PortSummary(
            port.text("name"), _tensor(graph.element("tensors", port.integer("tensor_index")))
        )
        for port in definition.children(name)
    )


def _metadata_entries(model: TableReader) -> Iterator[tuple[str, int]]:
    """Names of the metadata entries, and the numbers of their buffers."""
    _bounded(model, "metadata", MAXIMUM_METADATA)
    for entry in model.children("metadata"):
        yield entry.text("name"), entry.integer("buffer")
