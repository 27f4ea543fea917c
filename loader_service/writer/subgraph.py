"""Writes one subgraph: tensors in the order they are named, operators in the order they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loader_service.runtime import schema, schema_options
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType

from .encode import Union
from .tensors import (
    Array,
    BlockwiseQuantization,
    Quantization,
    Shape,
    Tensor,
    pack_strings,
    tensor_type_of,
)

if TYPE_CHECKING:
    from .model import ModelWriter

_NO_TENSOR = -1


class SubgraphWriter:
    """A subgraph of a `ModelWriter`; made by `ModelWriter.subgraph`."""

    def __init__(self, model: ModelWriter, index: int, name: str) -> None:
        self.index = index
        self._model = model
        self._name = name
        self._tensors: list[dict[str, object]] = []
        self._operators: list[dict[str, object]] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []

    def tensor(
        self,
        name: str,
        tensor_type: TensorType,
        shape: Shape,
        *,
        shape_signature: Shape | None = None,
        quantization: Quantization | BlockwiseQuantization | None = None,
        is_variable: bool = False,
        buffer: int = 0,
    ) -> Tensor:
        """A tensor that an operator fills.

        `shape` holds what the runtime allocates before any resize; `shape_signature` has -1 for a
        dimension known only at run time, and 1 then stands in `shape`. A variable tensor keeps its
        value between calls.
        """
        tensor = Tensor(self.index, len(self._tensors), name, tensor_type, shape, quantization)
        self._tensors.append(
            {
                "shape": shape,
                "type": int(tensor_type),
                "buffer": buffer,
                "name": name,
                "quantization": _quantization(quantization),
                "is_variable": is_variable,
                "shape_signature": shape_signature,
                "has_rank": True,
            }
        )
        return tensor

    def input(
        self,
        name: str,
        tensor_type: TensorType,
        shape: Shape,
        *,
        shape_signature: Shape | None = None,
        quantization: Quantization | None = None,
    ) -> Tensor:
        """A tensor that the caller fills."""
        tensor = self.tensor(
            name, tensor_type, shape, shape_signature=shape_signature, quantization=quantization
        )
        self._inputs.append(tensor.index)
        return tensor

    def constant(
        self,
        name: str,
        value: Array | Sequence[bytes],
        *,
        quantization: Quantization | None = None,
    ) -> Tensor:
        """A tensor whose value the file holds: an array, or the elements of a string vector."""
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            tensor_type, shape = tensor_type_of(array.dtype), value.shape
        else:
            data, tensor_type, shape = pack_strings(value), TensorType.STRING, (len(value),)
        return self.raw_constant(name, tensor_type, shape, data, quantization=quantization)

    def raw_constant(
        self,
        name: str,
        tensor_type: TensorType,
        shape: Shape,
        data: bytes,
        *,
        quantization: Quantization | None = None,
    ) -> Tensor:
        """A constant of a type that NumPy lacks, given as the bytes that the file is to hold."""
        return self.tensor(
            name, tensor_type, shape, quantization=quantization, buffer=self._model.buffer(data)
        )

    def operator(
        self,
        code: BuiltinOperator | str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        *,
        version: int = 1,
        custom_options: bytes = b"",
        **options: object,
    ) -> None:
        """Append an operator: a builtin with its options by name, or a custom one by its code.

        `None` among the inputs is an optional tensor left out. `KeyError` for an option that the
        operator does not have; `ValueError` for a tensor of another subgraph.
        """
        self._append(code, inputs, outputs, version, custom_options, options)

    def _append(
        self,
        code: BuiltinOperator | str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        version: int,
        custom_options: bytes,
        options: Mapping[str, object],
    ) -> None:
        for tensor in (*inputs, *outputs):
            if tensor is not None and tensor.subgraph != self.index:
                raise ValueError(f"tensor {tensor.name!r} belongs to subgraph {tensor.subgraph}")
        operator: dict[str, object] = {
            "opcode_index": self._model.operator_code(code, version),
            "inputs": [_NO_TENSOR if tensor is None else tensor.index for tensor in inputs],
            "outputs": [tensor.index for tensor in outputs],
            "custom_options": custom_options or None,
        }
        known = None if isinstance(code, str) else schema_options.OPTIONS.get(code)
        if known is not None:
            operator["builtin_options_type"] = known.member
            operator["builtin_options"] = Union(known.table, options)
        elif options:
            raise KeyError(f"{code} takes no options here: {', '.join(options)}")
        self._operators.append(operator)

    def unary(
        self,
        code: BuiltinOperator,
        value: Tensor,
        name: str,
        *,
        tensor_type: TensorType | None = None,
        **options: object,
    ) -> Tensor:
        """Append an operator from one tensor to a new one of its shape."""
        result = self.tensor(name, value.type if tensor_type is None else tensor_type, value.shape)
        self._append(code, [value], [result], 1, b"", options)
        return result

    def output(self, *tensors: Tensor) -> None:
        """Hand tensors out as the subgraph's next outputs."""
        self._outputs.extend(tensor.index for tensor in tensors)

    def values(self) -> dict[str, object]:
        """The subgraph as values of the schema's table."""
        return {
            "tensors": self._tensors,
            "inputs": self._inputs,
            "outputs": self._outputs,
            "operators": self._operators,
            "name": self._name,
        }


def _quantization(
    quantization: Quantization | BlockwiseQuantization | None,
) -> dict[str, object] | None:
    """Quantization as values of the schema's table."""
    if quantization is None:
        return None
    if isinstance(quantization, BlockwiseQuantization):
        values = {
            "scales": quantization.scales.index,
            "zero_points": quantization.zero_points.index,
            "block_size": quantization.block_size,
        }
        return {
            "details_type": int(schema.QuantizationDetails.BLOCKWISE),
            "details": Union(schema.BLOCKWISE_QUANTIZATION, values),
        }
    return {
        "scale": quantization.scale,
        "zero_point": quantization.zero_point,
        "quantized_dimension": quantization.dimension,
    }
