"""How many tensors a builtin operator takes and gives, and which may be left out, as data.

Source: the kernels of TFLite, which read their inputs by position; `Operands.optional` lists the
positions where a kernel asks before it reads (index -1 stands for "left out").
"""

from __future__ import annotations

from typing import NamedTuple

from loader_service.runtime.schema_operators import BuiltinOperator as Op

MANY = 1 << 16


class Operands(NamedTuple):
    """Fewest and most inputs, fewest and most outputs, inputs that may be -1."""

    fewest: int
    most: int
    outputs_fewest: int = 1
    outputs_most: int = 1
    optional: frozenset[int] = frozenset()


def _at(*positions: int | range) -> frozenset[int]:
    found: set[int] = set()
    for position in positions:
        found.update(position if isinstance(position, range) else (position,))
    return frozenset(found)


_UNARY, _BINARY, _TERNARY = Operands(1, 1), Operands(2, 2), Operands(3, 3)
_CONVOLUTION = Operands(2, 3)
# Input weights 1, recurrent weights 5, peepholes 9-11, biases 12, projection 16-17, norms 20-23.
_LSTM_OPTIONAL = _at(1, 5, range(9, 13), 16, 17, range(20, 24))
# Both directions' weights, peepholes, biases and projections, then the auxiliary input and weights.
_BIDIRECTIONAL_OPTIONAL = _at(1, 5, range(9, 13), 16, 17, 18, 22, range(26, 30), 33, 34) | _at(
    range(39, 48)
)

OPERANDS: dict[Op, Operands] = {
    **dict.fromkeys(
        (
            Op.ABS, Op.CAST, Op.CEIL, Op.COMPLEX_ABS, Op.COS, Op.DENSIFY, Op.DEPTH_TO_SPACE,
            Op.DEQUANTIZE, Op.ELU, Op.EXP, Op.FAKE_QUANT, Op.FLOOR, Op.GELU, Op.HARD_SWISH,
            Op.IMAG, Op.L2_NORMALIZATION, Op.LEAKY_RELU, Op.LOCAL_RESPONSE_NORMALIZATION, Op.LOG,
            Op.LOGICAL_NOT, Op.LOGISTIC, Op.LOG_SOFTMAX, Op.MATRIX_DIAG, Op.NEG, Op.QUANTIZE,
            Op.RANK, Op.REAL, Op.RELU, Op.RELU6, Op.RELU_0_TO_1, Op.RELU_N1_TO_1, Op.ROUND,
            Op.RSQRT, Op.SHAPE, Op.SIGN, Op.SIN, Op.SOFTMAX, Op.SPACE_TO_DEPTH, Op.SQRT,
            Op.SQUARE, Op.SQUEEZE, Op.TANH, Op.WHERE, Op.ZEROS_LIKE, Op.AVERAGE_POOL_2D,
            Op.MAX_POOL_2D, Op.L2_POOL_2D, Op.BUCKETIZE, Op.BITCAST, Op.SKIP_GRAM,
        ),
        _UNARY,
    ),
    **dict.fromkeys(
        (
            Op.ADD, Op.ARG_MAX, Op.ARG_MIN, Op.ATAN2, Op.BATCH_MATMUL, Op.BITWISE_XOR,
            Op.BROADCAST_ARGS, Op.BROADCAST_TO, Op.CUMSUM, Op.DIV, Op.EMBEDDING_LOOKUP, Op.EQUAL,
            Op.EXPAND_DIMS, Op.FILL, Op.FLOOR_DIV, Op.FLOOR_MOD, Op.GATHER, Op.GATHER_ND,
            Op.GREATER, Op.GREATER_EQUAL, Op.LESS, Op.LESS_EQUAL, Op.LOGICAL_AND, Op.LOGICAL_OR,
            Op.MATRIX_SET_DIAG, Op.MAXIMUM, Op.MEAN, Op.MINIMUM, Op.MIRROR_PAD, Op.MUL,
            Op.MULTINOMIAL, Op.NOT_EQUAL, Op.PAD, Op.POW, Op.PRELU, Op.REDUCE_ALL, Op.REDUCE_ANY,
            Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_PROD, Op.RESIZE_BILINEAR,
            Op.RESIZE_NEAREST_NEIGHBOR, Op.REVERSE_SEQUENCE, Op.REVERSE_V2, Op.RFFT2D,
            Op.RIGHT_SHIFT, Op.SEGMENT_SUM, Op.SQUARED_DIFFERENCE, Op.SUB, Op.SUM, Op.TILE,
            Op.TRANSPOSE,
        ),
        _BINARY,
    ),
    **dict.fromkeys(
        (
            Op.BATCH_TO_SPACE_ND, Op.SPACE_TO_BATCH_ND, Op.DYNAMIC_UPDATE_SLICE, Op.PADV2,
            Op.RANGE, Op.SCATTER_ND, Op.SELECT, Op.SELECT_V2, Op.SLICE, Op.UNSORTED_SEGMENT_MAX,
            Op.UNSORTED_SEGMENT_MIN, Op.UNSORTED_SEGMENT_PROD, Op.UNSORTED_SEGMENT_SUM,
        ),
        _TERNARY,
    ),
    Op.ADD_N: Operands(1, MANY),
    Op.CONCATENATION: Operands(1, MANY),
    Op.PACK: Operands(1, MANY),
    Op.CONV_2D: _CONVOLUTION,
    # Its kernel follows the bias without asking.
    Op.DEPTHWISE_CONV_2D: _TERNARY,
    Op.CONV_3D: Operands(2, 3, optional=_at(2)),
    Op.TRANSPOSE_CONV: Operands(3, 4, optional=_at(3)),
    Op.CONV_3D_TRANSPOSE: Operands(3, 4, optional=_at(3)),
    Op.FULLY_CONNECTED: Operands(2, MANY, 1, 2, _at(2)),
    Op.EMBEDDING_LOOKUP_SPARSE: Operands(5, 5),
    Op.LSH_PROJECTION: Operands(2, 3),
    Op.RESHAPE: Operands(1, 2),
    Op.ONE_HOT: Operands(4, 4),
    Op.SPARSE_TO_DENSE: Operands(4, 4),
    Op.STRIDED_SLICE: Operands(4, 5),
    Op.SPLIT: Operands(2, 2, 1, MANY),
    Op.SPLIT_V: Operands(3, 3, 1, MANY),
    Op.UNPACK: Operands(1, 1, 0, MANY),
    Op.TOPK_V2: Operands(2, 2, 2, 2),
    Op.UNIQUE: Operands(1, 1, 2, 2),
    Op.NON_MAX_SUPPRESSION_V4: Operands(5, 5, 2, 2),
    Op.NON_MAX_SUPPRESSION_V5: Operands(6, 6, 3, 3),
    Op.RANDOM_STANDARD_NORMAL: _UNARY,
    Op.RANDOM_UNIFORM: _UNARY,
    Op.SVDF: Operands(5, 5, optional=_at(3)),
    Op.RNN: Operands(5, 5),
    Op.UNIDIRECTIONAL_SEQUENCE_RNN: Operands(5, 5),
    Op.BIDIRECTIONAL_SEQUENCE_RNN: Operands(12, 12, 1, 2, _at(range(9, 12))),
    Op.LSTM: Operands(5, 24, 1, 4, _LSTM_OPTIONAL),
    Op.UNIDIRECTIONAL_SEQUENCE_LSTM: Operands(20, 24, 1, 1, _LSTM_OPTIONAL),
    Op.BIDIRECTIONAL_SEQUENCE_LSTM: Operands(48, 48, 1, 2, _BIDIRECTIONAL_OPTIONAL),
    Op.HASHTABLE: Operands(0, 0),
    Op.HASHTABLE_LOOKUP: Operands(3, 3, 2, 2),
    Op.HASHTABLE_FIND: _TERNARY,
    Op.HASHTABLE_IMPORT: Operands(3, 3, 0, 0),
    Op.HASHTABLE_SIZE: _UNARY,
    Op.VAR_HANDLE: Operands(0, 0),
    Op.READ_VARIABLE: _UNARY,
    Op.ASSIGN_VARIABLE: Operands(2, 2, 0, 0),
    Op.CALL_ONCE: Operands(0, 0, 0, 0),
    Op.IF: Operands(1, MANY, 0, MANY),
    Op.WHILE: Operands(1, MANY, 0, MANY),
}  # fmt: skip
"""Builtin operators that are not here (StableHLO's, custom ones) take any number."""

ANY = Operands(0, MANY, 0, MANY)

STATES: dict[Op, tuple[int, ...]] = {
    Op.SVDF: (4,),
    Op.RNN: (4,),
    Op.UNIDIRECTIONAL_SEQUENCE_RNN: (4,),
    Op.BIDIRECTIONAL_SEQUENCE_RNN: (4, 8),
    Op.UNIDIRECTIONAL_SEQUENCE_LSTM: (18, 19),
    Op.BIDIRECTIONAL_SEQUENCE_LSTM: (35, 36, 37, 38),
}
"""Inputs that the kernel writes: they must be variables, else it follows a null pointer."""
