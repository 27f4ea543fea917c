"""Rules for element types: operators that copy elements give what they take.

Some kernels size the copy by one tensor's type and the space by the other's: RESHAPE of an int32
tensor to an int8 one writes past its output in LiteRT 2.3.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.graph import Operator

_FIRST = (
    Op.RESHAPE, Op.SQUEEZE, Op.EXPAND_DIMS, Op.TRANSPOSE, Op.SLICE, Op.STRIDED_SLICE, Op.GATHER,
    Op.GATHER_ND, Op.PAD, Op.PADV2, Op.MIRROR_PAD, Op.TILE, Op.BROADCAST_TO, Op.REVERSE_V2,
    Op.REVERSE_SEQUENCE, Op.SPACE_TO_BATCH_ND, Op.BATCH_TO_SPACE_ND, Op.SPACE_TO_DEPTH,
    Op.DEPTH_TO_SPACE, Op.UNPACK, Op.SPLIT_V, Op.MAX_POOL_2D, Op.AVERAGE_POOL_2D,
    Op.DYNAMIC_UPDATE_SLICE, Op.ABS, Op.NEG, Op.FLOOR, Op.CEIL, Op.ROUND, Op.RELU, Op.RELU6,
    Op.RELU_N1_TO_1, Op.LEAKY_RELU, Op.ELU, Op.ZEROS_LIKE, Op.CUMSUM, Op.REDUCE_MAX,
    Op.REDUCE_MIN, Op.REDUCE_PROD, Op.SEGMENT_SUM,
)  # fmt: skip

COPIED: Mapping[int, int] = {**dict.fromkeys(_FIRST, 0), Op.FILL: 1, Op.SPLIT: 1, Op.SCATTER_ND: 1}
"""By operator, the input whose type all outputs have."""

ALIKE = frozenset((Op.CONCATENATION, Op.PACK, Op.ADD_N))
"""Operators all of whose inputs and outputs have one type."""


def broken_types(operator: Operator) -> Iterator[str]:
    """Yield, in words, where types differ that must not."""
    tensors = operator.graph.tensors
    position = COPIED.get(operator.code)
    if position is not None:
        first = tensors[operator.inputs[position]].type
        others = operator.outputs
    elif operator.code in ALIKE:
        first = tensors[operator.inputs[0]].type
        others = (*operator.inputs[1:], *operator.outputs)
    else:
        return
    for index in others:
        if tensors[index].type != first:
            yield (
                f"takes {TensorType(first).name.lower()}, and tensor {index} is "
                f"{TensorType(tensors[index].type).name.lower()}"
            )
