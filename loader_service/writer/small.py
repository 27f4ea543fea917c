"""Tiny models, one function each: element types, shapes, names and signatures at the boundary."""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType

from .layers import arithmetic
from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Quantization, Shape, Tensor

_FLOAT = TensorType.FLOAT32
DEFAULT_SIGNATURE = "serving_default"


def _one_to_one(graph: SubgraphWriter, value: Tensor, result: Tensor, model: ModelWriter) -> bytes:
    """Hand out the result, with the default signature x → y, and write the file."""
    graph.output(result)
    model.signature(DEFAULT_SIGNATURE, graph, {"x": value}, {"y": result})
    return model.write()


def add(addend: float = 1.0) -> bytes:
    """x: float32[1] → y = x + addend. Four bytes in, four bytes out."""
    model = ModelWriter("adds a constant")
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1,))
    constant = graph.constant("addend", np.array([addend], np.float32))
    y = arithmetic(graph, BuiltinOperator.ADD, x, constant, "y")
    return _one_to_one(graph, x, y, model)


def double(tensor_type: TensorType, shape: Shape = (4,)) -> bytes:
    """Doubles: x → y = x + x, of a type that ADD knows.

    float32, int16, int32 and int64 on both runtimes, float16 on LiteRT; int8 and uint8 get the
    quantization that their kernels cannot do without: x has scale 1, y scale 2, so y stores x.
    """
    quantized = tensor_type in (TensorType.INT8, TensorType.UINT8)
    model = ModelWriter()
    graph = model.subgraph()
    one, two = Quantization.per_tensor(1.0), Quantization.per_tensor(2.0)
    x = graph.input("x", tensor_type, shape, quantization=one if quantized else None)
    y = graph.tensor("y", tensor_type, shape, quantization=two if quantized else None)
    graph.operator(BuiltinOperator.ADD, [x, x], [y], version=2 if quantized else 1)
    return _one_to_one(graph, x, y, model)


def identity(tensor_type: TensorType, shape: Shape = (4,)) -> bytes:
    """No operators: the output is the input tensor, so both have one name and one memory.

    LiteRT runs it for every type but RESOURCE and VARIANT, tflite-runtime 2.14 for those up to
    UINT16. LiteRT's Python describes BFLOAT16 only where `ml_dtypes` was imported before, and shows
    INT4, INT2, UINT4 and the 8-bit floats as int8 or uint8; elements under 8 bits are packed.
    """
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", tensor_type, shape)
    return _one_to_one(graph, x, x, model)


def copy(tensor_type: TensorType, shape: Shape = (4,)) -> bytes:
    """Copies x → y by RESHAPE to the same shape; runs for the types that `identity` does."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", tensor_type, shape)
    sizes = graph.constant("shape", np.array(shape, np.int32))
    y = graph.tensor("y", tensor_type, shape)
    graph.operator(BuiltinOperator.RESHAPE, [x, sizes], [y], new_shape=shape)
    return _one_to_one(graph, x, y, model)


def cast(source: TensorType, target: TensorType, shape: Shape = (4,)) -> bytes:
    """x: source → y: target, by CAST."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", source, shape)
    y = graph.unary(
        BuiltinOperator.CAST,
        x,
        "y",
        tensor_type=target,
        in_data_type=int(source),
        out_data_type=int(target),
    )
    return _one_to_one(graph, x, y, model)


def scalar() -> bytes:
    """x: float32, rank 0 → y = x + 1, rank 0."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, ())
    one = graph.constant("one", np.array(1, np.float32))
    return _one_to_one(graph, x, arithmetic(graph, BuiltinOperator.ADD, x, one, "y"), model)


def zero_size() -> bytes:
    """x: float32[0] → y = x + x, also without elements."""
    return double(_FLOAT, (0,))


def dynamic_batch(features: int = 4) -> bytes:
    """x: float32[?, features] → y = 2x; the batch is known only at run time."""
    return _doubled((1, features), (-1, features))


def dynamic_image(channels: int = 3) -> bytes:
    """x: float32[1, ?, ?, channels] → y = 2x; height and width are known only at run time."""
    return _doubled((1, 1, 1, channels), (1, -1, -1, channels))


def _doubled(shape: Shape, shape_signature: Shape) -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, shape, shape_signature=shape_signature)
    y = graph.tensor("y", _FLOAT, shape, shape_signature=shape_signature)
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    return _one_to_one(graph, x, y, model)


def dynamic_output(elements: int = 8) -> bytes:
    """x: bool[elements] → y: int64[?, 1], the places where x is true (WHERE)."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.BOOL, (elements,))
    y = graph.tensor("y", TensorType.INT64, (1, 1), shape_signature=(-1, 1))
    graph.operator(BuiltinOperator.WHERE, [x], [y])
    return _one_to_one(graph, x, y, model)


def two_signatures() -> bytes:
    """Signatures `add` (a + b) and `subtract` (a - b) over float32[2], each a subgraph."""
    model = ModelWriter()
    for key, code in (("add", BuiltinOperator.ADD), ("subtract", BuiltinOperator.SUB)):
        graph = model.subgraph(key)
        a = graph.input(f"{key}_a", _FLOAT, (2,))
        b = graph.input(f"{key}_b", _FLOAT, (2,))
        result = arithmetic(graph, code, a, b, f"{key}_result")
        graph.output(result)
        model.signature(key, graph, {"a": a, "b": b}, {"result": result})
    return model.write()


def sum_and_difference() -> bytes:
    """a, b: float32[2] → sum, difference: one subgraph with two inputs and two outputs."""
    return _sum_and_difference("a", "b", "sum", "difference")


def repeated_names() -> bytes:
    """As `sum_and_difference`, with both inputs called `x` and both outputs called `y`."""
    return _sum_and_difference("x", "x", "y", "y")


def empty_names() -> bytes:
    """As `sum_and_difference`, with all tensors without a name."""
    return _sum_and_difference("", "", "", "")


def _sum_and_difference(first: str, second: str, total: str, difference: str) -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    a, b = graph.input(first, _FLOAT, (2,)), graph.input(second, _FLOAT, (2,))
    graph.output(arithmetic(graph, BuiltinOperator.ADD, a, b, total))
    graph.output(arithmetic(graph, BuiltinOperator.SUB, a, b, difference))
    return model.write()


def no_inputs() -> bytes:
    """Nothing → y = float32[2] holding 3 and 4; the sum is made at run time."""
    model = ModelWriter()
    graph = model.subgraph()
    left = graph.constant("left", np.array([1, 2], np.float32))
    right = graph.constant("right", np.array([2, 2], np.float32))
    graph.output(arithmetic(graph, BuiltinOperator.ADD, left, right, "y"))
    return model.write()


def no_outputs() -> bytes:
    """x: float32[2] → nothing; x + x is computed and dropped."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (2,))
    arithmetic(graph, BuiltinOperator.ADD, x, x, "dropped")
    return model.write()


def broadcast(elements: int) -> bytes:
    """x: float32[1] → y: float32[elements], x everywhere: a small input with a large output."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1,))
    sizes = graph.constant("shape", np.array([elements], np.int32))
    y = graph.tensor("y", _FLOAT, (elements,))
    graph.operator(BuiltinOperator.BROADCAST_TO, [x, sizes], [y], version=2)
    return _one_to_one(graph, x, y, model)


def fill() -> bytes:
    """elements: int32[1] → y: float32[?], so many ones: the caller asks for the output's size."""
    model = ModelWriter()
    graph = model.subgraph()
    elements = graph.input("elements", TensorType.INT32, (1,))
    one = graph.constant("one", np.array(1, np.float32))
    y = graph.tensor("y", _FLOAT, (1,), shape_signature=(-1,))
    graph.operator(BuiltinOperator.FILL, [elements, one], [y], version=3)
    graph.output(y)
    model.signature(DEFAULT_SIGNATURE, graph, {"elements": elements}, {"y": y})
    return model.write()
