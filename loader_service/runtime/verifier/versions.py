"""The latest version of each builtin operator that a runtime carries, as data.

Source: asked of LiteRT 2.3.0 by models of one operator each; tflite-runtime 2.14.0 carries no later
one. Operators that are not here have a number in the schema, and no kernel.
"""

from __future__ import annotations

from loader_service.runtime.schema_operators import BuiltinOperator as Op

LATEST_VERSIONS: dict[Op, int] = {
    **dict.fromkeys(
        (
            Op.FLOOR, Op.HASHTABLE_LOOKUP, Op.L2_POOL_2D, Op.LOCAL_RESPONSE_NORMALIZATION,
            Op.LSH_PROJECTION, Op.RELU_N1_TO_1, Op.RESHAPE, Op.SKIP_GRAM,
            Op.EMBEDDING_LOOKUP_SPARSE, Op.PRELU, Op.NEG, Op.EXPAND_DIMS, Op.SHAPE, Op.POW,
            Op.LOGICAL_OR, Op.ONE_HOT, Op.LOGICAL_AND, Op.LOGICAL_NOT, Op.REDUCE_ANY, Op.SQUARE,
            Op.ZEROS_LIKE, Op.UNIQUE, Op.CEIL, Op.ADD_N, Op.RANK, Op.ELU, Op.REVERSE_SEQUENCE,
            Op.MATRIX_DIAG, Op.MATRIX_SET_DIAG, Op.ROUND, Op.HARD_SWISH, Op.IF, Op.WHILE,
            Op.NON_MAX_SUPPRESSION_V4, Op.NON_MAX_SUPPRESSION_V5, Op.SCATTER_ND, Op.DENSIFY,
            Op.SEGMENT_SUM, Op.CUMSUM, Op.CALL_ONCE, Op.RFFT2D, Op.CONV_3D, Op.IMAG, Op.REAL,
            Op.COMPLEX_ABS, Op.HASHTABLE, Op.HASHTABLE_FIND, Op.HASHTABLE_IMPORT,
            Op.HASHTABLE_SIZE, Op.REDUCE_ALL, Op.CONV_3D_TRANSPOSE, Op.VAR_HANDLE,
            Op.READ_VARIABLE, Op.ASSIGN_VARIABLE, Op.BROADCAST_ARGS, Op.RANDOM_STANDARD_NORMAL,
            Op.BUCKETIZE, Op.RANDOM_UNIFORM, Op.MULTINOMIAL, Op.RELU_0_TO_1,
            Op.UNSORTED_SEGMENT_PROD, Op.UNSORTED_SEGMENT_MAX, Op.UNSORTED_SEGMENT_SUM, Op.ATAN2,
            Op.UNSORTED_SEGMENT_MIN, Op.BITCAST, Op.BITWISE_XOR, Op.RIGHT_SHIFT, Op.STABLEHLO_ADD,
            Op.STABLEHLO_MULTIPLY, Op.STABLEHLO_MAXIMUM, Op.STABLEHLO_AND, Op.STABLEHLO_MINIMUM,
            Op.STABLEHLO_SCATTER, Op.STABLEHLO_PAD, Op.STABLEHLO_REDUCE_WINDOW,
            Op.STABLEHLO_GATHER, Op.DILATE, Op.STABLEHLO_RNG_BIT_GENERATOR, Op.REDUCE_WINDOW,
            Op.STABLEHLO_COMPOSITE, Op.STABLEHLO_SHIFT_LEFT, Op.STABLEHLO_CASE,
        ),
        1,
    ),
    **dict.fromkeys(
        (
            Op.DEPTH_TO_SPACE, Op.L2_NORMALIZATION, Op.SPACE_TO_DEPTH, Op.DIV, Op.SQUEEZE, Op.EXP,
            Op.LOG_SOFTMAX, Op.GREATER, Op.LESS_EQUAL, Op.SIN, Op.LOG, Op.SUM, Op.SQRT,
            Op.FAKE_QUANT, Op.REDUCE_PROD, Op.FLOOR_MOD, Op.RANGE, Op.LEAKY_RELU,
            Op.SQUARED_DIFFERENCE, Op.COS, Op.WHERE, Op.SELECT_V2, Op.SIGN,
        ),
        2,
    ),
    **dict.fromkeys(
        (
            Op.AVERAGE_POOL_2D, Op.LOGISTIC, Op.MAX_POOL_2D, Op.RELU, Op.RELU6, Op.RNN, Op.TANH,
            Op.UNIDIRECTIONAL_SEQUENCE_RNN, Op.MEAN, Op.BIDIRECTIONAL_SEQUENCE_RNN, Op.TOPK_V2,
            Op.BIDIRECTIONAL_SEQUENCE_LSTM, Op.ARG_MAX, Op.LESS, Op.GREATER_EQUAL,
            Op.SPARSE_TO_DENSE, Op.TILE, Op.RSQRT, Op.ARG_MIN, Op.REDUCE_MAX, Op.REDUCE_MIN,
            Op.FLOOR_DIV, Op.MIRROR_PAD, Op.SPLIT_V, Op.GELU,
        ),
        3,
    ),
    **dict.fromkeys(
        (
            Op.LSTM, Op.RESIZE_BILINEAR, Op.SOFTMAX, Op.SVDF, Op.BATCH_TO_SPACE_ND,
            Op.SPACE_TO_BATCH_ND, Op.UNIDIRECTIONAL_SEQUENCE_LSTM, Op.MAXIMUM, Op.MINIMUM,
            Op.SELECT, Op.NOT_EQUAL, Op.RESIZE_NEAREST_NEIGHBOR, Op.REVERSE_V2, Op.BATCH_MATMUL,
            Op.BROADCAST_TO,
        ),
        4,
    ),
    **dict.fromkeys(
        (
            Op.EMBEDDING_LOOKUP, Op.SUB, Op.SPLIT, Op.TRANSPOSE_CONV, Op.EQUAL, Op.PACK, Op.FILL,
            Op.ABS,
        ),
        5,
    ),
    **dict.fromkeys(
        (
            Op.ADD, Op.PAD, Op.PADV2, Op.UNPACK, Op.GATHER_ND, Op.QUANTIZE,
            Op.DYNAMIC_UPDATE_SLICE,
        ),
        6,
    ),
    **dict.fromkeys(
        (
            Op.CONCATENATION, Op.DEPTHWISE_CONV_2D,
        ),
        7,
    ),
    **dict.fromkeys(
        (
            Op.CONV_2D, Op.MUL, Op.GATHER, Op.STRIDED_SLICE, Op.SLICE,
        ),
        8,
    ),
    **dict.fromkeys(
        (
            Op.DEQUANTIZE, Op.TRANSPOSE, Op.CAST,
        ),
        9,
    ),
    **dict.fromkeys(
        (
            Op.FULLY_CONNECTED,
        ),
        14,
    ),
}  # fmt: skip
