"""Options tables of builtin operators: the part of the schema that the project's writer uses.

`OPTIONS` gives for an operator the number of its table in the union `BuiltinOptions` and the table.
Operators that take no options are absent.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from .schema import Scalar, ScalarField, Table, TextField, VectorField
from .schema_builtin_options import BUILTIN_OPTIONS
from .schema_operators import BuiltinOperator


class Padding(enum.IntEnum):
    """How a window moves over the edge of its input."""

    SAME = 0
    VALID = 1


class Activation(enum.IntEnum):
    """`ActivationFunctionType`: a function fused into the end of an operator."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4
    SIGN_BIT = 5


class Options(NamedTuple):
    """An operator's options: the member of the union `BuiltinOptions`, and its table."""

    member: int
    table: Table


_ACTIVATION = "fused_activation_function"

CONV_2D = Table(
    "Conv2DOptions",
    ScalarField(0, "padding", Scalar.INT8),
    ScalarField(1, "stride_w", Scalar.INT32),
    ScalarField(2, "stride_h", Scalar.INT32),
    ScalarField(3, _ACTIVATION, Scalar.INT8),
    ScalarField(4, "dilation_w_factor", Scalar.INT32, default=1),
    ScalarField(5, "dilation_h_factor", Scalar.INT32, default=1),
)
DEPTHWISE_CONV_2D = Table(
    "DepthwiseConv2DOptions",
    ScalarField(0, "padding", Scalar.INT8),
    ScalarField(1, "stride_w", Scalar.INT32),
    ScalarField(2, "stride_h", Scalar.INT32),
    ScalarField(3, "depth_multiplier", Scalar.INT32),
    ScalarField(4, _ACTIVATION, Scalar.INT8),
    ScalarField(5, "dilation_w_factor", Scalar.INT32, default=1),
    ScalarField(6, "dilation_h_factor", Scalar.INT32, default=1),
)
POOL_2D = Table(
    "Pool2DOptions",
    ScalarField(0, "padding", Scalar.INT8),
    ScalarField(1, "stride_w", Scalar.INT32),
    ScalarField(2, "stride_h", Scalar.INT32),
    ScalarField(3, "filter_width", Scalar.INT32),
    ScalarField(4, "filter_height", Scalar.INT32),
    ScalarField(5, _ACTIVATION, Scalar.INT8),
)
FULLY_CONNECTED = Table(
    "FullyConnectedOptions",
    ScalarField(0, _ACTIVATION, Scalar.INT8),
    ScalarField(1, "weights_format", Scalar.INT8),
    ScalarField(2, "keep_num_dims", Scalar.BOOL),
    ScalarField(3, "asymmetric_quantize_inputs", Scalar.BOOL),
)
SVDF = Table(
    "SVDFOptions",
    ScalarField(0, "rank", Scalar.INT32),
    ScalarField(1, _ACTIVATION, Scalar.INT8),
    ScalarField(2, "asymmetric_quantize_inputs", Scalar.BOOL),
)
SOFTMAX = Table("SoftmaxOptions", ScalarField(0, "beta", Scalar.FLOAT32))
CONCATENATION = Table(
    "ConcatenationOptions",
    ScalarField(0, "axis", Scalar.INT32),
    ScalarField(1, _ACTIVATION, Scalar.INT8),
)
ADD = Table(
    "AddOptions",
    ScalarField(0, _ACTIVATION, Scalar.INT8),
    ScalarField(1, "pot_scale_int16", Scalar.BOOL, default=1),
)
SUB = Table(
    "SubOptions",
    ScalarField(0, _ACTIVATION, Scalar.INT8),
    ScalarField(1, "pot_scale_int16", Scalar.BOOL, default=1),
)
MUL = Table("MulOptions", ScalarField(0, _ACTIVATION, Scalar.INT8))
RESHAPE = Table("ReshapeOptions", VectorField(0, "new_shape", Scalar.INT32))
GATHER = Table(
    "GatherOptions",
    ScalarField(0, "axis", Scalar.INT32),
    ScalarField(1, "batch_dims", Scalar.INT32),
)
REDUCER = Table("ReducerOptions", ScalarField(0, "keep_dims", Scalar.BOOL))
CAST = Table(
    "CastOptions",
    ScalarField(0, "in_data_type", Scalar.INT8),
    ScalarField(1, "out_data_type", Scalar.INT8),
)
IF = Table(
    "IfOptions",
    ScalarField(0, "then_subgraph_index", Scalar.INT32),
    ScalarField(1, "else_subgraph_index", Scalar.INT32),
)
WHILE = Table(
    "WhileOptions",
    ScalarField(0, "cond_subgraph_index", Scalar.INT32),
    ScalarField(1, "body_subgraph_index", Scalar.INT32),
)
CALL_ONCE = Table("CallOnceOptions", ScalarField(0, "init_subgraph_index", Scalar.INT32))
VAR_HANDLE = Table("VarHandleOptions", TextField(0, "container"), TextField(1, "shared_name"))
BATCH_MATMUL = Table(
    "BatchMatMulOptions",
    ScalarField(0, "adj_x", Scalar.BOOL),
    ScalarField(1, "adj_y", Scalar.BOOL),
    ScalarField(2, "asymmetric_quantize_inputs", Scalar.BOOL),
)

OPTIONS: dict[BuiltinOperator, Options] = {
    BuiltinOperator.CONV_2D: Options(1, CONV_2D),
    BuiltinOperator.DEPTHWISE_CONV_2D: Options(2, DEPTHWISE_CONV_2D),
    BuiltinOperator.AVERAGE_POOL_2D: Options(5, POOL_2D),
    BuiltinOperator.MAX_POOL_2D: Options(5, POOL_2D),
    BuiltinOperator.SVDF: Options(6, SVDF),
    BuiltinOperator.FULLY_CONNECTED: Options(8, FULLY_CONNECTED),
    BuiltinOperator.SOFTMAX: Options(9, SOFTMAX),
    BuiltinOperator.CONCATENATION: Options(10, CONCATENATION),
    BuiltinOperator.ADD: Options(11, ADD),
    BuiltinOperator.RESHAPE: Options(17, RESHAPE),
    BuiltinOperator.MUL: Options(21, MUL),
    BuiltinOperator.GATHER: Options(23, GATHER),
    BuiltinOperator.MEAN: Options(27, REDUCER),
    BuiltinOperator.SUM: Options(27, REDUCER),
    BuiltinOperator.REDUCE_MAX: Options(27, REDUCER),
    BuiltinOperator.SUB: Options(28, SUB),
    BuiltinOperator.CAST: Options(37, CAST),
    BuiltinOperator.IF: Options(92, IF),
    BuiltinOperator.WHILE: Options(93, WHILE),
    BuiltinOperator.BATCH_MATMUL: Options(101, BATCH_MATMUL),
    BuiltinOperator.CALL_ONCE: Options(103, CALL_ONCE),
    BuiltinOperator.VAR_HANDLE: Options(111, VAR_HANDLE),
    # No model of the project needs these; hostile ones do, and mutants.
    BuiltinOperator.CONV_3D: Options(106, BUILTIN_OPTIONS[106]),
    BuiltinOperator.CONV_3D_TRANSPOSE: Options(106, BUILTIN_OPTIONS[106]),
    BuiltinOperator.CUMSUM: Options(102, BUILTIN_OPTIONS[102]),
    BuiltinOperator.DEPTH_TO_SPACE: Options(94, BUILTIN_OPTIONS[94]),
    BuiltinOperator.DIV: Options(29, BUILTIN_OPTIONS[29]),
    BuiltinOperator.L2_POOL_2D: Options(5, BUILTIN_OPTIONS[5]),
    BuiltinOperator.LEAKY_RELU: Options(75, BUILTIN_OPTIONS[75]),
    BuiltinOperator.LOCAL_RESPONSE_NORMALIZATION: Options(13, BUILTIN_OPTIONS[13]),
    BuiltinOperator.MIRROR_PAD: Options(77, BUILTIN_OPTIONS[77]),
    BuiltinOperator.PACK: Options(59, BUILTIN_OPTIONS[59]),
    BuiltinOperator.RESIZE_BILINEAR: Options(15, BUILTIN_OPTIONS[15]),
    BuiltinOperator.RESIZE_NEAREST_NEIGHBOR: Options(74, BUILTIN_OPTIONS[74]),
    BuiltinOperator.REVERSE_SEQUENCE: Options(87, BUILTIN_OPTIONS[87]),
    BuiltinOperator.SPACE_TO_DEPTH: Options(19, BUILTIN_OPTIONS[19]),
    BuiltinOperator.SPLIT: Options(35, BUILTIN_OPTIONS[35]),
    BuiltinOperator.SPLIT_V: Options(79, BUILTIN_OPTIONS[79]),
    BuiltinOperator.SQUEEZE: Options(30, BUILTIN_OPTIONS[30]),
    BuiltinOperator.STRIDED_SLICE: Options(32, BUILTIN_OPTIONS[32]),
    BuiltinOperator.TRANSPOSE_CONV: Options(49, BUILTIN_OPTIONS[49]),
    BuiltinOperator.UNPACK: Options(64, BUILTIN_OPTIONS[64]),
}
