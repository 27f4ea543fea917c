"""Metadata of a model (who made it, what its tensors mean) and the files packed with it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loader_service.runtime import schema_metadata
from loader_service.runtime.schema_metadata import AssociatedFileType

from .encode import encode

# The version of the metadata parser that knows all that is written here.
_MINIMUM_PARSER_VERSION = "1.0.0"
# The earliest date a zip archive can hold: equal models make equal files.
_PACKED_AT = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """What an input or output means; `labels_file` is packed with the model, a label a line."""

    name: str
    description: str
    labels_file: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a model is, for people."""

    name: str
    description: str
    version: str
    author: str
    license: str
    inputs: Sequence[TensorDescription]
    outputs: Sequence[TensorDescription]

    def encode(self) -> bytes:
        """The content of the model's metadata entry `TFLITE_METADATA`."""
        values = {
            "name": self.name,
            "description": self.description,
            "version": self.version,
            "author": self.author,
            "license": self.license,
            "min_parser_version": _MINIMUM_PARSER_VERSION,
            "subgraph_metadata": [
                {
                    "input_tensor_metadata": [_tensor(tensor) for tensor in self.inputs],
                    "output_tensor_metadata": [_tensor(tensor) for tensor in self.outputs],
                }
            ],
        }
        return encode(schema_metadata.MODEL_METADATA, values, schema_metadata.FILE_IDENTIFIER)


def _tensor(tensor: TensorDescription) -> dict[str, object]:
    values: dict[str, object] = {"name": tensor.name, "description": tensor.description}
    if tensor.labels_file is not None:
        file_type = int(AssociatedFileType.TENSOR_AXIS_LABELS)
        values["associated_files"] = [{"name": tensor.labels_file, "type": file_type}]
    return values


def pack(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """The model with files packed behind it, as a zip archive that ends the same file."""
    stream = io.BytesIO()
    stream.write(model)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _PACKED_AT), content)
    return stream.getvalue()
