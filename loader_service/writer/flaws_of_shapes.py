"""Models whose shapes crashed a runtime: found by fuzzing, and refused by the verifier since.

What each did was seen in LiteRT 2.3.0 or tflite-runtime 2.14.0.
"""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.schema_tensor_types import TensorType

from .model import ModelWriter
from .one_operator import Regression, convolution, ints, one, zeros
from .tensors import Shape

_FLOAT, _INT32, _INT8 = TensorType.FLOAT32, TensorType.INT32, TensorType.INT8


def narrower_output() -> bytes:
    """RESHAPE of int32 to int8: the kernel copies four times what the output holds.

    Alone it does no harm that shows; in a larger network it overwrote what LiteRT needed.
    """
    return one(
        Op.RESHAPE,
        lambda graph: [graph.input("x", _INT32, (1024,)), ints(graph, "shape", 1024)],
        (1024,),
        _INT8,
        new_shape=(1024,),
    )


def unpacked_larger() -> bytes:
    """Weights of float16 that claim to be larger unpacked: XNNPACK reads past the constant."""
    return one(
        Op.DEQUANTIZE,
        lambda graph: [graph.constant("half", np.zeros((1, 3, 3, 1), np.float16))],
        (1, 3, 65535, 1),
    )


def mirrored_too_far() -> bytes:
    """127 places mirrored of 1: tflite-runtime took a SIGFPE from it in a larger network."""
    return one(
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
    begin.operator(Op.ASSIGN_VARIABLE, [first, zeros(begin, "zeros", *variable)], [])
    return model.write()


def window_moved_further() -> bytes:
    """A stride of 20, an output for 1: tflite-runtime corrupted its heap in a larger network."""
    return convolution((1, 8, 8, 1), (1, 3, 3, 1), stride=20, shape=(1, 8, 8, 1))


def pool_larger_than_image() -> bytes:
    """A pool of 26 rows over an image of 25: tflite-runtime crashed in a larger network."""
    return one(
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
    return one(
        Op.LOCAL_RESPONSE_NORMALIZATION,
        lambda graph: [graph.input("x", _FLOAT, (1, 4, 4, 2))],
        (1, 4, 4, 2),
        radius=-1,
        beta=0.5,
    )


def slice_outside() -> bytes:
    """A slice that begins at 2²⁴ of 4: the kernel reads there."""
    return one(
        Op.SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (4, 4)),
            ints(graph, "begin", 2**24, 0),
            ints(graph, "size", 2, 3),
        ],
        (2, 3),
    )


def sliced_into_nothing() -> bytes:
    """A slice of 2 x 3, into an output of no rows."""
    return one(
        Op.SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (4, 4)),
            ints(graph, "begin", 1, 0),
            ints(graph, "size", 2, 3),
        ],
        (0, 3),
    )


def stride_beyond_integers() -> bytes:
    """A slice by steps of 2³¹ - 1: added to an index it is below zero."""
    return one(
        Op.STRIDED_SLICE,
        lambda graph: [
            graph.input("x", _FLOAT, (4, 4)),
            ints(graph, "begin", 0, 1),
            ints(graph, "end", 4, 4),
            ints(graph, "strides", 2, 2**31 - 1),
        ],
        (2, 1),
    )


def reversed_too_far() -> bytes:
    """A sequence of 2³¹ - 1 elements to reverse, of 3: the kernel reads there."""
    return one(
        Op.REVERSE_SEQUENCE,
        lambda graph: [graph.input("x", _FLOAT, (2, 3)), ints(graph, "lengths", 1, 2**31 - 1)],
        (2, 3),
        seq_dim=1,
        batch_dim=0,
    )


def more_images_than_made() -> bytes:
    """255 images, transposed into room for 1."""
    return one(
        Op.TRANSPOSE_CONV,
        lambda graph: [
            ints(graph, "shape", 1, 8, 8, 3),
            zeros(graph, "weights", 3, 2, 2, 2),
            graph.input("x", _FLOAT, (255, 4, 4, 2)),
        ],
        (1, 8, 8, 3),
        stride_w=2,
        stride_h=2,
    )


def transposed_too_far() -> bytes:
    """An image of 4 x 4, transposed into 65536 rows by a stride of 2."""
    return one(
        Op.TRANSPOSE_CONV,
        lambda graph: [
            ints(graph, "shape", 1, 65536, 8, 3),
            zeros(graph, "weights", 3, 2, 2, 2),
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
    operands = [x, zeros(graph, "weights", 12, 1, 1, 1), zeros(graph, "bias", 12)]
    y = graph.tensor("y", _FLOAT, (1, 2, 2, 12), shape_signature=(-1, 2, 2, 12))
    graph.operator(Op.CONV_2D, operands, [y], stride_w=1, stride_h=1)
    graph.output(y)
    return model.write()


def convolution_without_bias() -> bytes:
    """DEPTHWISE_CONV_2D of two inputs: both runtimes follow the bias that is not there."""
    return one(
        Op.DEPTHWISE_CONV_2D,
        lambda graph: [graph.input("x", _FLOAT, (1, 4, 4, 2)), zeros(graph, "w", 1, 2, 2, 2)],
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


def output_of_an_empty_buffer() -> bytes:
    """As `output_of_nothing`, of a buffer that is there and holds nothing."""
    model = ModelWriter()
    graph = model.subgraph()
    graph.input("x", TensorType.STRING, (4,))
    graph.output(graph.tensor("y", TensorType.STRING, (4,), buffer=model.buffer(b"")))
    return model.write()


def resized_from_nothing() -> bytes:
    """RESIZE_BILINEAR of an image without rows: tflite-runtime crashes."""
    return one(
        Op.RESIZE_BILINEAR,
        lambda graph: [graph.input("x", _FLOAT, (1, 0, 4, 2)), ints(graph, "size", 3, 5)],
        (1, 3, 5, 2),
    )


def declared_otherwise() -> bytes:
    """An input of 1 that declares 1000: tflite-runtime divided by zero when it was called so."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1,), shape_signature=(1000,))
    y = graph.tensor("y", _FLOAT, (1,))
    graph.operator(Op.ABS, [x], [y])
    graph.output(y)
    return model.write()


def softmax_of_nothing() -> bytes:
    """SOFTMAX over a dimension of size 0: tflite-runtime crashes."""
    return one(Op.SOFTMAX, lambda graph: [graph.input("x", _FLOAT, (2, 0))], (2, 0), beta=1.0)


def angle_with_a_single_one() -> bytes:
    """ATAN2 of many values and one, which the kernel does not spread: it reads beyond that."""
    return one(
        Op.ATAN2,
        lambda graph: [
            graph.input("y", _FLOAT, (1, 8_000_000)),
            graph.constant("x", np.ones((1, 1), np.float32)),
        ],
        (1, 8_000_000),
    )


def shifted_by_a_single_one() -> bytes:
    """As `angle_with_a_single_one`, with STABLEHLO_SHIFT_LEFT, and an open batch."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _INT32, (1, 4), shape_signature=(-1, 4))
    y = graph.tensor("y", _INT32, (1, 4), shape_signature=(-1, 4))
    graph.operator(
        Op.STABLEHLO_SHIFT_LEFT, [x, graph.constant("by", np.ones((1, 4), np.int32))], [y]
    )
    graph.output(y)
    return model.write()


FLAWS_OF_SHAPES = (
    Regression(narrower_output, "an overflow in LiteRT 2.3.0", "takes int32, and tensor 2 is int8"),
    Regression(unpacked_larger, "a crash of LiteRT 2.3.0", "unpacks a constant of shape"),
    Regression(
        mirrored_too_far, "a fault in tflite-runtime 2.14", "mirrors 127 of 1 in dimension 1"
    ),
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
    Regression(
        output_of_an_empty_buffer, "a crash of LiteRT 2.3.0", "'y': an output .* nothing produces"
    ),
    Regression(resized_from_nothing, "a crash of tflite-runtime 2.14", "an image out of none"),
    Regression(declared_otherwise, "a fault in tflite-runtime 2.14", "size 1, and declares 1000"),
    Regression(softmax_of_nothing, "a crash of tflite-runtime 2.14", "goes over no elements"),
    Regression(angle_with_a_single_one, "a crash of both runtimes", r"\(1, 8000000\) and \(1, 1\)"),
    Regression(shifted_by_a_single_one, "a crash of LiteRT 2.3.0", r"\(-1, 4\) and \(1, 4\)"),
)
"""With the words of their refusal (a regular expression)."""
