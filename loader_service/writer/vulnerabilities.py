"""A model for each class of published flaw in TFLite's kernels, as small as can be.

Each was written from the public report that it names: CVE numbers, or issues of TensorFlow. The
verifier refuses each by a rule, and what fuzzing found, too; `REGRESSIONS` says which.
"""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType

from .flaws_of_scales import FLAWS_OF_SCALES
from .flaws_of_shapes import FLAWS_OF_SHAPES
from .model import ModelWriter
from .one_operator import Regression, convolution, ints, one, zeros
from .tensors import Quantization, Shape

_FLOAT, _INT8 = TensorType.FLOAT32, TensorType.INT8


def mismatched_channels() -> bytes:
    """An image of 3 channels, filters for 2: the kernel reads past the image."""
    return convolution((1, 2, 2, 3), (1, 1, 1, 2))


def no_groups() -> bytes:
    """An image of 1 channel, filters for 2: no group is left, and the kernel divides by that."""
    return convolution((1, 2, 2, 1), (1, 1, 1, 2))


def empty_filter() -> bytes:
    """Filters of no channels: the kernel divides by their number."""
    return convolution((1, 2, 2, 1), (1, 1, 1, 0))


def stride_of_zero() -> bytes:
    """A window that does not move: the kernel divides by the stride."""
    return convolution((1, 2, 2, 1), (1, 1, 1, 1), stride=0)


def huge_scratch() -> bytes:
    """A large window over a large image: unrolled it takes more than any machine has."""
    return convolution((1, 32768, 32768, 1), (1, 255, 255, 1), stride=1, shape=(1, 32768, 32768, 1))


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
    return one(Op.ADD, lambda graph: [graph.input("x", _FLOAT, (1,)), None])


def unsorted_segments() -> bytes:
    """Segments 1, 0: the kernel sizes the output by the last one, and writes past it."""
    return _segments(1, 0)


def huge_segment() -> bytes:
    """Segment 2³¹ - 2: the kernel makes as many rows."""
    return _segments(0, 2**31 - 2)


def _segments(*ids: int) -> bytes:
    return one(
        Op.SEGMENT_SUM,
        lambda graph: [graph.input("x", _FLOAT, (len(ids), 2)), ints(graph, "ids", *ids)],
        (2, 2),
    )


def negative_axis() -> bytes:
    """Mean over axis -5 of 2: the kernel writes before its array."""
    return one(
        Op.MEAN,
        lambda graph: [graph.input("x", _FLOAT, (2, 2)), ints(graph, "axes", -5)],
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
    return one(
        Op.SPACE_TO_BATCH_ND,
        lambda graph: [
            graph.input("x", _FLOAT, (1, 2, 2, 1)),
            ints(graph, "blocks", 0, 2),
            graph.constant("paddings", np.zeros((2, 2), np.int32)),
        ],
        (1, 1, 1, 1),
    )


def joined_too_long() -> bytes:
    """Two tensors of 2³⁰ + 1 along one axis: the sum does not fit the kernel's integer."""
    return one(
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
    return one(
        Op.EMBEDDING_LOOKUP_SPARSE,
        lambda graph: [
            ints(graph, "ids", 0),
            graph.constant("indices", np.zeros((1, depth), np.int32)),
            ints(graph, "dense_shape", *dense),
            zeros(graph, "weights", 1),
            graph.input("table", _FLOAT, (1, 1)),
        ],
    )


def split_axis_outside() -> bytes:
    """Split along axis 9 of 1: the kernel reads past the shape."""
    return one(
        Op.SPLIT_V,
        lambda graph: [
            graph.input("x", _FLOAT, (1,)),
            ints(graph, "sizes", 1),
            graph.constant("axis", np.array(9, np.int32)),
        ],
        num_splits=1,
    )


def state_is_no_variable() -> bytes:
    """SVDF whose state is an ordinary input: the kernel looks for a variable and finds null."""
    return one(
        Op.SVDF,
        lambda graph: [
            graph.input("x", _FLOAT, (1, 1)),
            zeros(graph, "features", 1, 1),
            zeros(graph, "time", 1, 1),
            None,
            graph.input("state", _FLOAT, (1, 1)),
        ],
        (1, 1),
        rank=1,
    )


def endless_slice() -> bytes:
    """An ellipsis that would stand for less than nothing: the kernel never gets past it."""
    return one(
        Op.STRIDED_SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (1,)),
            *(ints(graph, name, 0, 0, 0, 0, 0) for name in ("begin", "end")),
            ints(graph, "strides", 1, 1, 1, 1, 1),
        ],
        ellipsis_mask=1,
    )


def short_bias() -> bytes:
    """A bias of 1 for 4 channels: the kernel reads past it."""
    return one(
        Op.CONV_3D_TRANSPOSE,
        lambda graph: [
            ints(graph, "shape", 1, 1, 1, 1, 4),
            zeros(graph, "weights", 1, 1, 1, 4, 1),
            graph.input("x", _FLOAT, (1, 1, 1, 1, 1)),
            zeros(graph, "bias", 1),
        ],
        (1, 1, 1, 1, 4),
        stride_d=1,
        stride_w=1,
        stride_h=1,
    )


def shape_too_long() -> bytes:
    """A new shape of 12 dimensions: the kernel's array has 8."""
    return one(Op.RESHAPE, lambda graph: [graph.input("x", _FLOAT, (1,))], new_shape=(1,) * 12)


def unknown_attention() -> bytes:
    """A custom code that LiteRT's XNNPACK takes for its own, without asking for its inputs."""
    return one("odml.scaled_dot_product_attention", lambda graph: [graph.input("x", _FLOAT, (1,))])


def strings_out_of_order() -> bytes:
    """A string constant whose offsets run backwards."""
    data = np.array([2, 16, 2**30, 16], "<i4").tobytes()
    return one(
        Op.RESHAPE,
        lambda graph: [
            graph.raw_constant("x", TensorType.STRING, (2,), data),
            ints(graph, "shape", 2),
        ],
        (2,),
        TensorType.STRING,
    )


def constant_too_short() -> bytes:
    """A constant of 4 bytes for 1,000 numbers: kernels read past the file."""
    return one(
        Op.ADD,
        lambda graph: [
            graph.input("x", _FLOAT, (1000,)),
            graph.raw_constant("c", _FLOAT, (1000,), bytes(4)),
        ],
        (1000,),
    )


def too_many_elements() -> bytes:
    """A tensor of 2¹⁶ · 2¹⁶ numbers: their count is 0 in a kernel's integer."""
    return one(Op.ABS, lambda graph: [graph.input("x", _FLOAT, (2**16, 2**16))], (2**16, 2**16))


def quantized_outside() -> bytes:
    """Scales for dimension 7 of 1: the kernel reads past the shape."""
    return one(
        Op.DEQUANTIZE,
        lambda graph: [
            graph.input("x", _INT8, (2,), quantization=Quantization((1.0, 1.0), (0, 0), 7))
        ],
        (2,),
    )


PUBLISHED = (
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
    Regression(stride_of_zero, "class: division by zero", "stride_w is 0"),
    Regression(huge_scratch, "class: huge scratch", "the unrolled image would take"),
    Regression(strings_out_of_order, "class: string buffers", "out of order or range"),
    Regression(constant_too_short, "class: buffer sizes", "takes 4000 bytes"),
    Regression(too_many_elements, "class: overflow of counts", "more than 2147483647 elements"),
    Regression(quantized_outside, "class: indices of dimensions", "along dimension 7 of 1"),
)
"""With the words of their refusal (a regular expression)."""

REGRESSIONS = (*PUBLISHED, *FLAWS_OF_SHAPES, *FLAWS_OF_SCALES)
"""All of them."""
