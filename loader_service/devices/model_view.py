"""What a device sees of a model: the primary subgraph as plain values, and the file's bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from loader_service.devices.capabilities import OperatorClass
from loader_service.runtime.schema_tensor_types import TensorType

_CONTROL_FLOW = frozenset({"IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
_FLOATS = frozenset(
    {TensorType.FLOAT16, TensorType.FLOAT32, TensorType.FLOAT64, TensorType.BFLOAT16}
)


@dataclass(frozen=True, slots=True)
class TensorView:
    """One tensor of the primary subgraph."""

    index: int
    type: int
    """A `TensorType`, or the number of a type that came later."""
    shape: tuple[int, ...]
    """As the file has it: sizes that are open there stand as the file's placeholders."""
    data: tuple[int, int] | None = None
    """Where the constant lies in the file, and how many bytes; None for what is computed."""
    is_variable: bool = False
    is_quantized: bool = False
    """Whether it has scales."""

    @property
    def is_constant(self) -> bool:
        """Whether its contents are in the file."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """How many elements the file's shape has."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One operator; its number is its place in the file and in the interpreter."""

    index: int
    operator: str
    """The builtin's name, for example ``"CONV_2D"``, or the custom code."""
    inputs: tuple[int, ...]
    """Tensors; -1 for an optional one that is left out."""
    outputs: tuple[int, ...]
    version: int = 1
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class ModelView:
    """The primary subgraph of a model that the verifier has passed."""

    tensors: tuple[TensorView, ...]
    nodes: tuple[NodeView, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int = 1
    """How many the file has: signatures and control flow may run the others."""
    stateless: bool = True
    """Whether a run leaves nothing behind that the next one sees, in any subgraph."""
    data: bytes = field(default=b"", repr=False)
    """The file, as it came."""

    def kind(self, node: NodeView) -> OperatorClass:
        """Return the class of an operator, by the tensors that it computes."""
        if node.operator in _CONTROL_FLOW:
            return OperatorClass.CONTROL_FLOW
        outputs = [self.tensors[index] for index in node.outputs if index >= 0]
        if any(tensor.is_quantized and tensor.type not in _FLOATS for tensor in outputs):
            return OperatorClass.QUANTIZED
        if any(tensor.type in _FLOATS for tensor in outputs):
            return OperatorClass.FLOAT
        return OperatorClass.OTHER
