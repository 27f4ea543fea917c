"""The tables of TFLite model metadata (file identifier ``M001``) that `inspect` reads.

Source: the published ``metadata_schema.fbs``. The metadata is a FlatBuffer of its own, held by the
buffer that the model's metadata entry `METADATA_NAME` points to.
"""

from __future__ import annotations

import enum

from .schema import Scalar, ScalarField, Table, TableVectorField, TextField

METADATA_NAME = "TFLITE_METADATA"
MINIMUM_RUNTIME_VERSION_NAME = "min_runtime_version"
FILE_IDENTIFIER = b"M001"


class AssociatedFileType(enum.IntEnum):
    """What a file packed with the model is for."""

    UNKNOWN = 0
    DESCRIPTIONS = 1
    TENSOR_AXIS_LABELS = 2
    TENSOR_VALUE_LABELS = 3
    TENSOR_AXIS_SCORE_CALIBRATION = 4
    VOCABULARY = 5
    SCANN_INDEX_FILE = 6


ASSOCIATED_FILE = Table(
    "AssociatedFile",
    TextField(0, "name"),
    TextField(1, "description"),
    ScalarField(2, "type", Scalar.INT8),
    TextField(3, "locale"),
    TextField(4, "version"),
)

TENSOR_METADATA = Table(
    "TensorMetadata",
    TextField(0, "name"),
    TextField(1, "description"),
    TableVectorField(6, "associated_files", ASSOCIATED_FILE),
)

SUBGRAPH_METADATA = Table(
    "SubGraphMetadata",
    TextField(0, "name"),
    TextField(1, "description"),
    TableVectorField(2, "input_tensor_metadata", TENSOR_METADATA),
    TableVectorField(3, "output_tensor_metadata", TENSOR_METADATA),
    TableVectorField(4, "associated_files", ASSOCIATED_FILE),
)

MODEL_METADATA = Table(
    "ModelMetadata",
    TextField(0, "name"),
    TextField(1, "description"),
    TextField(2, "version"),
    TableVectorField(3, "subgraph_metadata", SUBGRAPH_METADATA),
    TextField(4, "author"),
    TextField(5, "license"),
    TableVectorField(6, "associated_files", ASSOCIATED_FILE),
    TextField(7, "min_parser_version"),
)
