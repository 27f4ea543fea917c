"""The tables of the TFLite model schema, version 3, as data.

Source: the published ``schema.fbs`` of TFLite (file identifier ``TFL3``). A field's slot is its
number within its table; slots are never reused, so files of every release of schema 3 read alike.
The reader (`flatbuffer`, `inspection`) and the writer (`loader_service.writer`) share these tables.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3


class Scalar(enum.Enum):
    """A scalar type of FlatBuffers; the value is its little-endian `struct` code."""

    BOOL = "<?"
    INT8 = "<b"
    UINT8 = "<B"
    INT16 = "<h"
    UINT16 = "<H"
    INT32 = "<i"
    UINT32 = "<I"
    INT64 = "<q"
    UINT64 = "<Q"
    FLOAT32 = "<f"
    FLOAT64 = "<d"


@dataclass(frozen=True, slots=True)
class ScalarField:
    """One number; a field that is absent from the file has the default."""

    slot: int
    name: str
    scalar: Scalar
    default: int | float = 0


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector of numbers; `alignment` in bytes is stronger than the number's own where given."""

    slot: int
    name: str
    scalar: Scalar
    alignment: int = 1


@dataclass(frozen=True, slots=True)
class TextField:
    """A UTF-8 string."""

    slot: int
    name: str


@dataclass(frozen=True, slots=True)
class TableField:
    """One nested table."""

    slot: int
    name: str
    table: Table


@dataclass(frozen=True, slots=True)
class TableVectorField:
    """A vector of nested tables."""

    slot: int
    name: str
    table: Table


@dataclass(frozen=True, slots=True)
class UnionField:
    """A nested table whose kind is told by the scalar field in the slot before it."""

    slot: int
    name: str


Field = ScalarField | VectorField | TextField | TableField | TableVectorField | UnionField


class Table:
    """A table of the schema: its name and its fields by name."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields: Mapping[str, Field] = {field.name: field for field in fields}

    @property
    def slots(self) -> int:
        """The number of slots up to the last field known here."""
        return 1 + max((field.slot for field in self.fields.values()), default=-1)

    def __repr__(self) -> str:
        return f"Table({self.name})"


class QuantizationDetails(enum.IntEnum):
    """Kind of the table in `QuantizationParameters.details`."""

    NONE = 0
    CUSTOM = 1
    BLOCKWISE = 2
    MULTI_AXIS = 3


BLOCKWISE_QUANTIZATION = Table(
    "BlockwiseQuantization",
    ScalarField(0, "scales", Scalar.INT32),
    ScalarField(1, "zero_points", Scalar.INT32),
    ScalarField(2, "block_size", Scalar.INT32),
)

CUSTOM_QUANTIZATION = Table(
    "CustomQuantization",
    VectorField(0, "custom", Scalar.UINT8, alignment=16),
)

MULTI_AXIS_QUANTIZATION = Table(
    "MultiAxisQuantization",
    ScalarField(0, "scales", Scalar.INT32),
    ScalarField(1, "zero_points", Scalar.INT32),
    ScalarField(2, "block_size", Scalar.INT32),
    VectorField(3, "quantized_dimensions", Scalar.INT32),
)

QUANTIZATION_PARAMETERS = Table(
    "QuantizationParameters",
    VectorField(0, "min", Scalar.FLOAT32),
    VectorField(1, "max", Scalar.FLOAT32),
    VectorField(2, "scale", Scalar.FLOAT32),
    VectorField(3, "zero_point", Scalar.INT64),
    ScalarField(4, "details_type", Scalar.UINT8),
    UnionField(5, "details"),
    ScalarField(6, "quantized_dimension", Scalar.INT32),
)

INT32_VECTOR = Table("Int32Vector", VectorField(0, "values", Scalar.INT32))
UINT16_VECTOR = Table("Uint16Vector", VectorField(0, "values", Scalar.UINT16, alignment=4))
UINT8_VECTOR = Table("Uint8Vector", VectorField(0, "values", Scalar.UINT8, alignment=4))

DIMENSION_METADATA = Table(
    "DimensionMetadata",
    ScalarField(0, "format", Scalar.INT8),
    ScalarField(1, "dense_size", Scalar.INT32),
    ScalarField(2, "array_segments_type", Scalar.UINT8),
    UnionField(3, "array_segments"),
    ScalarField(4, "array_indices_type", Scalar.UINT8),
    UnionField(5, "array_indices"),
)

SPARSITY_PARAMETERS = Table(
    "SparsityParameters",
    VectorField(0, "traversal_order", Scalar.INT32),
    VectorField(1, "block_map", Scalar.INT32),
    TableVectorField(2, "dim_metadata", DIMENSION_METADATA),
)

VARIANT_SUB_TYPE = Table(
    "VariantSubType",
    VectorField(0, "shape", Scalar.INT32),
    ScalarField(1, "type", Scalar.INT8),
    ScalarField(2, "has_rank", Scalar.BOOL),
)

TENSOR = Table(
    "Tensor",
    VectorField(0, "shape", Scalar.INT32),
    ScalarField(1, "type", Scalar.INT8),
    ScalarField(2, "buffer", Scalar.UINT32),
    TextField(3, "name"),
    TableField(4, "quantization", QUANTIZATION_PARAMETERS),
    ScalarField(5, "is_variable", Scalar.BOOL),
    TableField(6, "sparsity", SPARSITY_PARAMETERS),
    VectorField(7, "shape_signature", Scalar.INT32),
    ScalarField(8, "has_rank", Scalar.BOOL),
    TableVectorField(9, "variant_tensors", VARIANT_SUB_TYPE),
    ScalarField(10, "external_buffer", Scalar.UINT32),
)

OPERATOR_CODE = Table(
    "OperatorCode",
    # Before builtin operator 127 the number was one signed byte; readers take the larger of both.
    ScalarField(0, "deprecated_builtin_code", Scalar.INT8),
    TextField(1, "custom_code"),
    ScalarField(2, "version", Scalar.INT32, default=1),
    ScalarField(3, "builtin_code", Scalar.INT32),
)

OPERATOR = Table(
    "Operator",
    ScalarField(0, "opcode_index", Scalar.UINT32),
    VectorField(1, "inputs", Scalar.INT32),
    VectorField(2, "outputs", Scalar.INT32),
    ScalarField(3, "builtin_options_type", Scalar.UINT8),
    UnionField(4, "builtin_options"),
    VectorField(5, "custom_options", Scalar.UINT8),
    ScalarField(6, "custom_options_format", Scalar.INT8),
    VectorField(7, "mutating_variable_inputs", Scalar.BOOL),
    VectorField(8, "intermediates", Scalar.INT32),
    ScalarField(9, "large_custom_options_offset", Scalar.UINT64),
    ScalarField(10, "large_custom_options_size", Scalar.UINT64),
    ScalarField(11, "builtin_options_2_type", Scalar.UINT8),
    UnionField(12, "builtin_options_2"),
    ScalarField(13, "debug_metadata_index", Scalar.INT32, default=-1),
)

SUBGRAPH = Table(
    "SubGraph",
    TableVectorField(0, "tensors", TENSOR),
    VectorField(1, "inputs", Scalar.INT32),
    VectorField(2, "outputs", Scalar.INT32),
    TableVectorField(3, "operators", OPERATOR),
    TextField(4, "name"),
    ScalarField(5, "debug_metadata_index", Scalar.INT32, default=-1),
)

BUFFER = Table(
    "Buffer",
    # Kernels read constants in place, so the schema asks for 16-byte alignment.
    VectorField(0, "data", Scalar.UINT8, alignment=16),
    # Data beyond the FlatBuffer, in files larger than 2 GB; counted from the start of the file.
    ScalarField(1, "offset", Scalar.UINT64),
    ScalarField(2, "size", Scalar.UINT64),
)

METADATA = Table(
    "Metadata",
    TextField(0, "name"),
    ScalarField(1, "buffer", Scalar.UINT32),
)

TENSOR_MAP = Table(
    "TensorMap",
    TextField(0, "name"),
    ScalarField(1, "tensor_index", Scalar.UINT32),
)

SIGNATURE_DEF = Table(
    "SignatureDef",
    TableVectorField(0, "inputs", TENSOR_MAP),
    TableVectorField(1, "outputs", TENSOR_MAP),
    TextField(2, "signature_key"),
    ScalarField(4, "subgraph_index", Scalar.UINT32),
)

MODEL = Table(
    "Model",
    ScalarField(0, "version", Scalar.UINT32),
    TableVectorField(1, "operator_codes", OPERATOR_CODE),
    TableVectorField(2, "subgraphs", SUBGRAPH),
    TextField(3, "description"),
    TableVectorField(4, "buffers", BUFFER),
    VectorField(5, "metadata_buffer", Scalar.INT32),
    TableVectorField(6, "metadata", METADATA),
    TableVectorField(7, "signature_defs", SIGNATURE_DEF),
)

TABLES = (
    BLOCKWISE_QUANTIZATION,
    CUSTOM_QUANTIZATION,
    MULTI_AXIS_QUANTIZATION,
    QUANTIZATION_PARAMETERS,
    INT32_VECTOR,
    UINT16_VECTOR,
    UINT8_VECTOR,
    DIMENSION_METADATA,
    SPARSITY_PARAMETERS,
    VARIANT_SUB_TYPE,
    TENSOR,
    OPERATOR_CODE,
    OPERATOR,
    SUBGRAPH,
    BUFFER,
    METADATA,
    TENSOR_MAP,
    SIGNATURE_DEF,
    MODEL,
)
