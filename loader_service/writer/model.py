"""Writes a `.tflite` file: subgraphs, buffers, operator codes, signatures and metadata."""

from __future__ import annotations

from collections.abc import Mapping

from loader_service.runtime import schema
from loader_service.runtime.schema_operators import BuiltinOperator

from .encode import encode
from .subgraph import SubgraphWriter
from .tensors import Tensor

# Numbers from here on did not fit the byte that held the operator code at first.
_FIRST_LONG_CODE = int(BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)


class ModelWriter:
    """Collects a model's parts; `write` gives the bytes of the file.

    The first subgraph is the primary one, that a runtime runs when no signature is named.
    """

    def __init__(self, description: str = "", version: int = schema.SCHEMA_VERSION) -> None:
        self._description = description
        self._version = version
        self._subgraphs: list[SubgraphWriter] = []
        # Buffer 0 is empty by convention: tensors without constant data point to it.
        self._buffers: list[bytes] = [b""]
        self._codes: list[tuple[BuiltinOperator | str, int]] = []
        self._signatures: list[dict[str, object]] = []
        self._metadata: list[dict[str, object]] = []

    def subgraph(self, name: str = "main") -> SubgraphWriter:
        """Add a subgraph."""
        subgraph = SubgraphWriter(self, len(self._subgraphs), name)
        self._subgraphs.append(subgraph)
        return subgraph

    def signature(
        self,
        key: str,
        subgraph: SubgraphWriter,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
    ) -> None:
        """Give a subgraph's inputs and outputs the names of a signature."""
        self._signatures.append(
            {
                "inputs": _tensor_maps(inputs),
                "outputs": _tensor_maps(outputs),
                "signature_key": key,
                "subgraph_index": subgraph.index,
            }
        )

    def metadata(self, name: str, data: bytes) -> None:
        """Add a metadata entry: bytes under a name, of which runtimes take no notice."""
        self._metadata.append({"name": name, "buffer": self.buffer(data)})

    def buffer(self, data: bytes) -> int:
        """Add constant data, and give the number of its buffer."""
        self._buffers.append(data)
        return len(self._buffers) - 1

    def operator_code(self, code: BuiltinOperator | str, version: int) -> int:
        """The number of an operator code, added where it is new."""
        entry = (code, version)
        if entry not in self._codes:
            self._codes.append(entry)
        return self._codes.index(entry)

    def write(self) -> bytes:
        """The bytes of the file."""
        values: dict[str, object] = {
            "version": self._version,
            "operator_codes": [_operator_code(code, version) for code, version in self._codes],
            "subgraphs": [subgraph.values() for subgraph in self._subgraphs],
            "description": self._description,
            "buffers": [
                {} if number == 0 else {"data": data} for number, data in enumerate(self._buffers)
            ],
            "metadata": self._metadata or None,
            "signature_defs": self._signatures or None,
        }
        size_hint = 4096 + sum(map(len, self._buffers))
        return encode(schema.MODEL, values, schema.FILE_IDENTIFIER, size_hint)


def _tensor_maps(tensors: Mapping[str, Tensor]) -> list[dict[str, object]]:
    return [{"name": name, "tensor_index": tensor.index} for name, tensor in tensors.items()]


def _operator_code(code: BuiltinOperator | str, version: int) -> dict[str, object]:
    builtin = BuiltinOperator.CUSTOM if isinstance(code, str) else code
    return {
        "deprecated_builtin_code": min(int(builtin), _FIRST_LONG_CODE),
        "custom_code": code if isinstance(code, str) else None,
        "version": version,
        "builtin_code": int(builtin),
    }
