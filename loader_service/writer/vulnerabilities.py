"""A model for each class of published flaw in TFLite's kernels, as small as can be.

Each was written from the public report that it names: CVE numbers, or issues of TensorFlow. The
verifier refuses every one of them by a rule; `REGRESSIONS` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType

from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Quantization, Shape, Tensor

_FLOAT, _INT32, _INT8 = TensorType.FLOAT32, TensorType.INT32, TensorType.INT8


def _one(
    code: Op | str,
    inputs: Callable[[SubgraphWriter], Sequence[Tensor | None]],
    shape: Shape = (1,),
    output: TensorType = _FLOAT,
    version: int = 1,
    **options: Any,
) -> bytes:
    """A model of one operator."""
    model = ModelWriter()
    graph = model.subgraph()
    given = inputs(graph)
    y = graph.tensor("y", output, shape)
    graph.operator(code, given, [y], version=version, **options)
    graph.output(y)
    return model.write()


def _ints(graph: SubgraphWriter, name: str, *values: int) -> Tensor:
    return graph.constant(name, np.array(values, np.int32))


def _zeros(graph: SubgraphWriter, name: str, *shape: int) -> Tensor:
    return graph.constant(name, np.zeros(shape, np.float32))


def mismatched_channels() -> bytes:
    """An image of 3 channels, filters for 2: the kernel reads past the image."""
    return _convolution((1, 2, 2, 3), (1, 1, 1, 2))


def _convolution(
    image: Shape, weights: Shape, stride: int = 1, shape: Shape = (1, 2, 2, 1)
) -> bytes:
    return _one(
        Op.CONV_2D,
        lambda graph: [
            graph.input("x", _FLOAT, image),
            _zeros(graph, "weights", *weights),
            _zeros(graph, "bias", weights[0]),
        ],
        shape,
        stride_w=stride,
        stride_h=stride,
    )


def no_groups() -> bytes:
    """An image of 1 channel, filters for 2: no group is left, and the kernel divides by that."""
    return _convolution((1, 2, 2, 1), (1, 1, 1, 2))


def empty_filter() -> bytes:
    """Filters of no channels: the kernel divides by their number."""
    return _convolution((1, 2, 2, 1), (1, 1, 1, 0))


def stride_of_zero() -> bytes:
    """A window that does not move: the kernel divides by the stride."""
    return _convolution((1, 2, 2, 1), (1, 1, 1, 1), stride=0)


def huge_scratch() -> bytes:
    """A large window over a large image: unrolled it takes more than any machine has."""
    return _convolution(
        (1, 32768, 32768, 1), (1, 255, 255, 1), stride=1, shape=(1, 32768, 32768, 1)
    )


def input_is_output() -> bytes:
    """The sum x + y → y: the kernel frees and resizes what it reads."""
    model = ModelWriter()
    graph = model.subgraph()
    x, y = graph.input("x", _FLOAT, (1,)), graph.tensor("y", _FLOAT, (1,))
    graph.operator(Op.ADD, [x, y], [y])
    graph.output(y)
    return model.write()


def operand_left_out() -> bytes:
    """Index -1 for an operand that the kernel reads: the one before the first tensor."""
    return _one(Op.ADD, lambda graph: [graph.input("x", _FLOAT, (1,)), None])


def unsorted_segments() -> bytes:
    """Segments 1, 0: the kernel sizes the output by the last one, and writes past it."""
    return _segments(1, 0)


def huge_segment() -> bytes:
    """Segment 2³¹ - 2: the kernel makes as many rows."""
    return _segments(0, 2**31 - 2)


def _segments(*ids: int) -> bytes:
    return _one(
        Op.SEGMENT_SUM,
        lambda graph: [graph.input("x", _FLOAT, (len(ids), 2)), _ints(graph, "ids", *ids)],
        (2, 2),
    )


def negative_axis() -> bytes:
    """Mean over axis -5 of 2: the kernel writes before its array."""
    return _one(
        Op.MEAN,
        lambda graph: [graph.input("x", _FLOAT, (2, 2)), _ints(graph, "axes", -5)],
        keep_dims=True,
    )


def loop_in_itself() -> bytes:
    """WHILE whose body is the subgraph it stands in: it never ends being prepared."""
    model = ModelWriter()
    main, test, body = (model.subgraph(name) for name in ("main", "test", "body"))
    x = test.input("x", _FLOAT, (1,))
    test.output(test.constant("true", np.array([True])))
    for graph in (main, body):
        x, y = graph.input("x", _FLOAT, (1,)), graph.tensor("y", _FLOAT, (1,))
        graph.operator(
            Op.WHILE, [x], [y], cond_subgraph_index=test.index, body_subgraph_index=body.index
        )
        graph.output(y)
    return model.write()


def block_of_zero() -> bytes:
    """Blocks of no size: the kernel divides by them."""
    return _one(
        Op.SPACE_TO_BATCH_ND,
        lambda graph: [
            graph.input("x", _FLOAT, (1, 2, 2, 1)),
            _ints(graph, "blocks", 0, 2),
            graph.constant("paddings", np.zeros((2, 2), np.int32)),
        ],
        (1, 1, 1, 1),
    )


def joined_too_long() -> bytes:
    """Two tensors of 2³⁰ + 1 along one axis: the sum does not fit the kernel's integer."""
    return _one(
        Op.CONCATENATION,
        lambda graph: [graph.input(name, _INT8, (2**30 + 1,)) for name in ("a", "b")],
        output=_INT8,
        axis=0,
    )


def sparse_embedding_overflow() -> bytes:
    """A dense shape of 2¹⁶ · 2¹⁶ · 2: the kernel's count overflows."""
    return _sparse_embedding((2**16, 2**16, 2), 3)


def sparse_embedding_rank() -> bytes:
    """Indices of 9 numbers for a shape of 2: the kernel sizes its array by one, fills by other."""
    return _sparse_embedding((1, 1), 9)


def _sparse_embedding(dense: Shape, depth: int) -> bytes:
    return _one(
        Op.EMBEDDING_LOOKUP_SPARSE,
        lambda graph: [
            _ints(graph, "ids", 0),
            graph.constant("indices", np.zeros((1, depth), np.int32)),
            _ints(graph, "dense_shape", *dense),
            _zeros(graph, "weights", 1),
            graph.input("table", _FLOAT, (1, 1)),
        ],
    )


def split_axis_outside() -> bytes:
    """Split along axis 9 of 1: the kernel reads past the shape."""
    return _one(
        Op.SPLIT_V,
        lambda graph: [
            graph.input("x", _FLOAT, (1,)),
            _ints(graph, "sizes", 1),
            graph.constant("axis", np.array(9, np.int32)),
        ],
        num_splits=1,
    )


def state_is_no_variable() -> bytes:
    """SVDF whose state is an ordinary input: the kernel looks for a variable and finds null."""
    return _one(
        Op.SVDF,
        lambda graph: [
            graph.input("x", _FLOAT, (1, 1)),
            _zeros(graph, "features", 1, 1),
            _zeros(graph, "time", 1, 1),
            None,
            graph.input("state", _FLOAT, (1, 1)),
        ],
        (1, 1),
        rank=1,
    )


def endless_slice() -> bytes:
    """An ellipsis that would stand for less than nothing: the kernel never gets past it."""
    return _one(
        Op.STRIDED_SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (1,)),
            *(_ints(graph, name, 0, 0, 0, 0, 0) for name in ("begin", "end")),
            _ints(graph, "strides", 1, 1, 1, 1, 1),
        ],
        ellipsis_mask=1,
    )


def short_bias() -> bytes:
    """A bias of 1 for 4 channels: the kernel reads past it."""
    return _one(
        Op.CONV_3D_TRANSPOSE,
        lambda graph: [
            _ints(graph, "shape", 1, 1, 1, 1, 4),
            _zeros(graph, "weights", 1, 1, 1, 4, 1),
            graph.input("x", _FLOAT, (1, 1, 1, 1, 1)),
            _zeros(graph, "bias", 1),
        ],
        (1, 1, 1, 1, 4),
        stride_d=1,
        stride_w=1,
        stride_h=1,
    )


def shape_too_long() -> bytes:
    """A new shape of 12 dimensions: the kernel's array has 8."""
    return _one(Op.RESHAPE, lambda graph: [graph.input("x", _FLOAT, (1,))], new_shape=(1,) * 12)


def unknown_attention() -> bytes:
    """A custom code that LiteRT's XNNPACK takes for its own, without asking for its inputs."""
    return _one("odml.scaled_dot_product_attention", lambda graph: [graph.input("x", _FLOAT, (1,))])


def strings_out_of_order() -> bytes:
    """A string constant whose offsets run backwards."""
    data = np.array([2, 16, 2**30, 16], "<i4").tobytes()
    return _one(
        Op.RESHAPE,
        lambda graph: [
            graph.raw_constant("x", TensorType.STRING, (2,), data),
            _ints(graph, "shape", 2),
        ],
        (2,),
        TensorType.STRING,
    )


def constant_too_short() -> bytes:
    """A constant of 4 bytes for 1,000 numbers: kernels read past the file."""
    return _one(
        Op.ADD,
        lambda graph: [
            graph.input("x", _FLOAT, (1000,)),
            graph.raw_constant("c", _FLOAT, (1000,), bytes(4)),
        ],
        (1000,),
    )


def too_many_elements() -> bytes:
    """A tensor of 2¹⁶ · 2¹⁶ numbers: their count is 0 in a kernel's integer."""
    return _one(Op.ABS, lambda graph: [graph.input("x", _FLOAT, (2**16, 2**16))], (2**16, 2**16))


def quantized_outside() -> bytes:
    """Scales for dimension 7 of 1: the kernel reads past the shape."""
    return _one(
        Op.DEQUANTIZE,
        lambda graph: [
            graph.input("x", _INT8, (2,), quantization=Quantization((1.0, 1.0), (0, 0), 7))
        ],
        (2,),
    )


def narrower_output() -> bytes:
    """RESHAPE of int32 to int8: the kernel copies four times what the output holds.

    Alone it does no harm that shows; in a larger network it overwrote what LiteRT needed.
    """
    return _one(
        Op.RESHAPE,
        lambda graph: [graph.input("x", _INT32, (1024,)), _ints(graph, "shape", 1024)],
        (1024,),
        _INT8,
        new_shape=(1024,),
    )


def unpacked_larger() -> bytes:
    """Weights of float16 that claim to be larger unpacked: XNNPACK reads past the constant."""
    return _one(
        Op.DEQUANTIZE,
        lambda graph: [graph.constant("half", np.zeros((1, 3, 3, 1), np.float16))],
        (1, 3, 65535, 1),
    )


def scale_without_shift() -> bytes:
    """A scale of 1e30, that no kernel's shift holds: LiteRT frees twice in a larger network."""
    return _scaled(1e30, 0)


def scale_of_nan() -> bytes:
    """A scale that is no number: tflite-runtime aborted on it in a larger network."""
    return _scaled(float("nan"), 0)


def zero_point_outside() -> bytes:
    """A zero point of 65535 for int8: LiteRT crashed on it in a larger network."""
    return _scaled(1.0, 65535)


def ratio_of_scales() -> bytes:
    """Scales that are ordinary alone, of input 1e6, weights 1e6, output 1e-6."""
    each = [Quantization.per_tensor(scale) for scale in (1e6, 1e6, 1e-6)]
    return _quantized(*each)


def sum_without_shift() -> bytes:
    """ADD of int16 with an output scale of 1e-30: both runtimes abort."""
    model = ModelWriter()
    graph = model.subgraph()
    kind, usual = TensorType.INT16, Quantization.per_tensor(1.0)
    x = graph.input("x", kind, (1, 32, 32), quantization=usual)
    y = graph.tensor("y", kind, (1, 32, 32), quantization=Quantization.per_tensor(1e-30))
    graph.operator(Op.ADD, [x, x], [y], version=2, pot_scale_int16=False)
    graph.output(y)
    return model.write()


def _scaled(scale: float, zero_point: int) -> bytes:
    usual = Quantization.per_tensor(1.0)
    return _quantized(Quantization.per_tensor(scale, zero_point), usual, usual)


def _quantized(image: Quantization, weights: Quantization, result: Quantization) -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _INT8, (1, 2, 2, 1), quantization=image)
    kernel = graph.constant("weights", np.ones((1, 1, 1, 1), np.int8), quantization=weights)
    y = graph.tensor("y", _INT8, (1, 2, 2, 1), quantization=result)
    bias = _ints(graph, "bias", 0)
    graph.operator(Op.CONV_2D, [x, kernel, bias], [y], version=3, stride_w=1, stride_h=1)
    graph.output(y)
    return model.write()


def mirrored_too_far() -> bytes:
    """127 places mirrored of 1: tflite-runtime took a SIGFPE from it in a larger network."""
    return _one(
        Op.MIRROR_PAD,
        lambda graph: [
            graph.input("x", _FLOAT, (1, 1, 171)),
            graph.constant("paddings", np.array([[0, 0], [0, 127], [128, 128]], np.int32)),
        ],
        (1, 128, 427),
        mode=0,
    )


def mirrored_in_an_open_shape() -> bytes:
    """As `mirrored_too_far`, in a tensor whose batch is open: its other dimensions are not."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1, 1, 171), shape_signature=(-1, 1, 171))
    paddings = graph.constant("paddings", np.array([[0, 0], [0, 127], [128, 128]], np.int32))
    y = graph.tensor("y", _FLOAT, (1, 128, 427), shape_signature=(-1, 128, 427))
    graph.operator(Op.MIRROR_PAD, [x, paddings], [y], mode=0)
    graph.output(y)
    return model.write()


def joined_with_variable() -> bytes:
    """5 rows of a variable and 7 of an input, joined into 5: LiteRT writes past them."""
    return _behind_variable(Op.CONCATENATION, (7, 5), (5, 5), (5, 5))


def added_to_variable() -> bytes:
    """2,049 numbers and a variable of one, added into one: LiteRT writes past it."""
    return _behind_variable(Op.ADD, (2049,), (1,), (1,))


def _behind_variable(code: Op, value: Shape, variable: Shape, result: Shape) -> bytes:
    """The operator on an input and a variable, whose result becomes the variable's value."""
    model = ModelWriter()
    graph, begin = model.subgraph(), model.subgraph("begin")
    x = graph.input("x", _FLOAT, value)
    graph.operator(Op.CALL_ONCE, [], [], init_subgraph_index=begin.index)
    handle = graph.tensor("handle", TensorType.RESOURCE, ())
    graph.operator(Op.VAR_HANDLE, [], [handle], container="", shared_name="kept")
    read = graph.tensor("read", _FLOAT, variable)
    graph.operator(Op.READ_VARIABLE, [handle], [read])
    y = graph.tensor("y", _FLOAT, result)
    graph.operator(code, [x, read], [y])
    graph.operator(Op.ASSIGN_VARIABLE, [handle, y], [])
    graph.output(y)
    first = begin.tensor("handle", TensorType.RESOURCE, ())
    begin.operator(Op.VAR_HANDLE, [], [first], container="", shared_name="kept")
    begin.operator(Op.ASSIGN_VARIABLE, [first, _zeros(begin, "zeros", *variable)], [])
    return model.write()


def sum_without_scale() -> bytes:
    """ADD of int8 without quantization: both runtimes abort."""
    return _of_bytes(Op.ADD, None, None)


def sum_of_wide_scales() -> bytes:
    """ADD of int8 with the scale 2²⁰ of an input and 1 of the output: both runtimes abort."""
    return _of_bytes(Op.ADD, 2.0**20, 1.0)


def square_without_scale() -> bytes:
    """SQUARED_DIFFERENCE of int8 without quantization: both runtimes abort."""
    return _of_bytes(Op.SQUARED_DIFFERENCE, None, None)


def compared_by_whole_scale() -> bytes:
    """EQUAL of int8 with the scale 1, which kernels take for a fraction: both runtimes abort."""
    return _of_bytes(Op.EQUAL, 1.0, None, TensorType.BOOL)


def scale_of_zero() -> bytes:
    """QUANTIZE from the scale 0: LiteRT crashes."""
    return _of_bytes(Op.QUANTIZE, 0.0, 1.0)


def root_without_scale() -> bytes:
    """RSQRT of int16 without quantization: LiteRT crashes."""
    return _of_bytes(Op.RSQRT, None, None, TensorType.INT16, TensorType.INT16)


def _of_bytes(
    code: Op,
    scale: float | None,
    result: float | None,
    output: TensorType = _INT8,
    kind: TensorType = _INT8,
) -> bytes:
    """One operator whose inputs are one tensor."""
    scales = [None if each is None else Quantization.per_tensor(each) for each in (scale, result)]
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", kind, (1, 8), quantization=scales[0])
    y = graph.tensor("y", output, (1, 8), quantization=scales[1])
    unary = code in (Op.QUANTIZE, Op.RSQRT)
    graph.operator(code, [x] if unary else [x, x], [y], version=2)
    graph.output(y)
    return model.write()


def window_moved_further() -> bytes:
    """A stride of 20, an output for 1: tflite-runtime corrupted its heap in a larger network."""
    return _convolution((1, 8, 8, 1), (1, 3, 3, 1), stride=20, shape=(1, 8, 8, 1))


def pool_larger_than_image() -> bytes:
    """A pool of 26 rows over an image of 25: tflite-runtime crashed in a larger network."""
    return _one(
        Op.AVERAGE_POOL_2D,
        lambda graph: [graph.input("x", _FLOAT, (1, 25, 5, 1))],
        (1, 1, 1, 1),
        padding=1,
        stride_w=5,
        stride_h=25,
        filter_width=5,
        filter_height=26,
    )


def radius_below_zero() -> bytes:
    """LOCAL_RESPONSE_NORMALIZATION over a radius of -1: both runtimes read before the image."""
    return _one(
        Op.LOCAL_RESPONSE_NORMALIZATION,
        lambda graph: [graph.input("x", _FLOAT, (1, 4, 4, 2))],
        (1, 4, 4, 2),
        radius=-1,
        beta=0.5,
    )


def slice_outside() -> bytes:
    """A slice that begins at 2²⁴ of 4: the kernel reads there."""
    return _one(
        Op.SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (4, 4)),
            _ints(graph, "begin", 2**24, 0),
            _ints(graph, "size", 2, 3),
        ],
        (2, 3),
    )


def reversed_too_far() -> bytes:
    """A sequence of 2³¹ - 1 elements to reverse, of 3: the kernel reads there."""
    return _one(
        Op.REVERSE_SEQUENCE,
        lambda graph: [graph.input("x", _FLOAT, (2, 3)), _ints(graph, "lengths", 1, 2**31 - 1)],
        (2, 3),
        seq_dim=1,
        batch_dim=0,
    )


def more_images_than_made() -> bytes:
    """255 images, transposed into room for 1."""
    return _one(
        Op.TRANSPOSE_CONV,
        lambda graph: [
            _ints(graph, "shape", 1, 8, 8, 3),
            _zeros(graph, "weights", 3, 2, 2, 2),
            graph.input("x", _FLOAT, (255, 4, 4, 2)),
        ],
        (1, 8, 8, 3),
        stride_w=2,
        stride_h=2,
    )


def transposed_too_far() -> bytes:
    """An image of 4 x 4, transposed into 65536 rows by a stride of 2."""
    return _one(
        Op.TRANSPOSE_CONV,
        lambda graph: [
            _ints(graph, "shape", 1, 65536, 8, 3),
            _zeros(graph, "weights", 3, 2, 2, 2),
            graph.input("x", _FLOAT, (1, 4, 4, 2)),
        ],
        (1, 65536, 8, 3),
        stride_w=2,
        stride_h=2,
    )


def channels_of_an_open_batch() -> bytes:
    """As `mismatched_channels`, with a batch that is open: tflite-runtime divided by zero."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1, 2, 2, 255), shape_signature=(-1, 2, 2, 255))
    operands = [x, _zeros(graph, "weights", 12, 1, 1, 1), _zeros(graph, "bias", 12)]
    y = graph.tensor("y", _FLOAT, (1, 2, 2, 12), shape_signature=(-1, 2, 2, 12))
    graph.operator(Op.CONV_2D, operands, [y], stride_w=1, stride_h=1)
    graph.output(y)
    return model.write()


def convolution_without_bias() -> bytes:
    """DEPTHWISE_CONV_2D of two inputs: both runtimes follow the bias that is not there."""
    return _one(
        Op.DEPTHWISE_CONV_2D,
        lambda graph: [graph.input("x", _FLOAT, (1, 4, 4, 2)), _zeros(graph, "w", 1, 2, 2, 2)],
        (1, 4, 4, 2),
        stride_w=1,
        stride_h=1,
        depth_multiplier=1,
    )


def output_of_nothing() -> bytes:
    """A string output, and no operator that makes it: reading it crashes LiteRT."""
    model = ModelWriter()
    graph = model.subgraph()
    graph.input("x", TensorType.STRING, (4,))
    graph.output(graph.tensor("y", TensorType.STRING, (4,)))
    return model.write()


def softmax_of_nothing() -> bytes:
    """SOFTMAX over a dimension of size 0: tflite-runtime crashes."""
    return _one(Op.SOFTMAX, lambda graph: [graph.input("x", _FLOAT, (2, 0))], (2, 0), beta=1.0)


class Regression(NamedTuple):
    """A model, the report that it stands for, and what the refusal says."""

    make: Callable[[], bytes]
    report: str
    says: str


REGRESSIONS = (
    Regression(mismatched_channels, "CVE-2020-15208", "3 channels do not divide into groups of 2"),
    Regression(input_is_output, "CVE-2020-15210", r"operator 0 \(ADD\): .*'y', is its output too"),
    Regression(unsorted_segments, "CVE-2020-15214", "segment ids are not sorted"),
    Regression(huge_segment, "CVE-2020-15213", "segment 2147483646 makes more than"),
    Regression(operand_left_out, "CVE-2020-15211", r"input 1 cannot be left out \(index -1\)"),
    Regression(negative_axis, "CVE-2020-15207", "axis -5 is out of range for 2 dimensions"),
    Regression(loop_in_itself, "CVE-2021-29591", "subgraph 2 calls itself"),
    Regression(block_of_zero, "CVE-2021-29597", r"blocks are \(0, 2\)"),
    Regression(joined_too_long, "CVE-2021-29601", "dimension 0 becomes 2147483650"),
    Regression(sparse_embedding_overflow, "CVE-2021-29605", "its dense shape is"),
    Regression(split_axis_outside, "CVE-2021-29606", "axis 9 is out of range for 1 dim"),
    Regression(state_is_no_variable, "CVE-2021-37681", "the state, which must be a variable"),
    Regression(endless_slice, "CVE-2021-37686", "slices 4 of 1 dimensions"),
    Regression(sparse_embedding_rank, "CVE-2022-23558", "indices of 9 numbers"),
    Regression(short_bias, "CVE-2022-41894", "bias of shape"),
    Regression(empty_filter, "CVE-2023-27579", "its filter has the shape"),
    Regression(no_groups, "tensorflow#60622", "1 channels do not divide into groups of 2"),
    Regression(shape_too_long, "tensorflow#124982", "new_shape has 12 dimensions"),
    Regression(unknown_attention, "a crash of LiteRT 2.3.0", "unresolved custom op: odml"),
    Regression(narrower_output, "an overflow in LiteRT 2.3.0", "takes int32, and tensor 2 is int8"),
    Regression(unpacked_larger, "a crash of LiteRT 2.3.0", "unpacks a constant of shape"),
    Regression(
        scale_without_shift, "a double free in LiteRT 2.3.0", r"'x': its scales reach from 1e"
    ),
    Regression(scale_of_nan, "an abort of tflite-runtime 2.14", "'x': its scales reach from nan"),
    Regression(zero_point_outside, "a crash of LiteRT 2.3.0", "zero points reach from 65535"),
    Regression(ratio_of_scales, "class: float exceptions", "the ratio 1e[+]12 to 1e-06"),
    Regression(
        mirrored_too_far, "a fault in tflite-runtime 2.14", "mirrors 127 of 1 in dimension 1"
    ),
    Regression(sum_without_shift, "an abort of both runtimes", "the ratio 1 to 1e-30"),
    Regression(
        mirrored_in_an_open_shape,
        "a fault in tflite-runtime 2.14",
        "mirrors 127 of 1 in dimension 1",
    ),
    Regression(
        joined_with_variable, "heap corruption in LiteRT 2.3.0", "becomes 12, and its output has 5"
    ),
    Regression(
        added_to_variable, "heap corruption in LiteRT 2.3.0", r"the shape \(2049,\), and its output"
    ),
    Regression(sum_without_scale, "an abort of both runtimes", "the ratio 0 to 0"),
    Regression(sum_of_wide_scales, "an abort of both runtimes", r"the ratio 1\.04858e[+]06 to 1"),
    Regression(square_without_scale, "an abort of both runtimes", "the ratio 0 to 0"),
    Regression(compared_by_whole_scale, "an abort of both runtimes", "the scale 1, no fraction"),
    Regression(scale_of_zero, "a crash of LiteRT 2.3.0", "has no scale to divide by"),
    Regression(root_without_scale, "a crash of LiteRT 2.3.0", "has no scale to divide by"),
    Regression(
        window_moved_further, "heap corruption in tflite-runtime 2.14", "dimension 1 becomes 1, and"
    ),
    Regression(
        pool_larger_than_image, "a crash of tflite-runtime 2.14", "dimension 1 becomes 0, and"
    ),
    Regression(radius_below_zero, "a crash of both runtimes", "its radius is -1"),
    Regression(slice_outside, "a crash of both runtimes", "takes 2 from 16777216 of 4"),
    Regression(
        reversed_too_far, "a crash of both runtimes", "reverses 2147483647 [(]and 1[)] of 3"
    ),
    Regression(more_images_than_made, "an abort of tflite-runtime 2.14", "makes 1 images of 255"),
    Regression(
        transposed_too_far, "a crash of tflite-runtime 2.14", "becomes 32768, and its image"
    ),
    Regression(
        channels_of_an_open_batch, "class: division by zero", "12 filters do not divide into 255"
    ),
    Regression(convolution_without_bias, "a crash of both runtimes", "takes 2 inputs"),
    Regression(output_of_nothing, "a crash of LiteRT 2.3.0", "'y': an output .* nothing produces"),
    Regression(softmax_of_nothing, "a crash of tflite-runtime 2.14", "goes over no elements"),
    Regression(stride_of_zero, "class: division by zero", "stride_w is 0"),
    Regression(huge_scratch, "class: huge scratch", "the unrolled image would take"),
    Regression(strings_out_of_order, "class: string buffers", "out of order or range"),
    Regression(constant_too_short, "class: buffer sizes", "takes 4000 bytes"),
    Regression(too_many_elements, "class: overflow of counts", "more than 2147483647 elements"),
    Regression(quantized_outside, "class: indices of dimensions", "along dimension 7 of 1"),
)
"""All of them, with the words of their refusal (a regular expression)."""
