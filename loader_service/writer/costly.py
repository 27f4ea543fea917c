"""Small files that take much time or memory: for deadlines, limits, and measurements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType

from .layers import reshape
from .model import ModelWriter
from .subgraph import SubgraphWriter
from .tensors import Array, Tensor

_FLOAT, _INT32 = TensorType.FLOAT32, TensorType.INT32
_BYTES_PER_GIBIBYTE = 1 << 30

# State of the loops below: how often it has run, how often it shall, and a matrix to work on.
_State = tuple[Tensor, Tensor, Tensor]


def work(size: int = 256) -> bytes:
    """iterations: int32[1] → done: int32[1], after so many products of two size × size matrices.

    One product is 2 × size³ operations: a third of a millisecond with the default size, measured
    on one thread of a server processor.
    """
    return _loop(size, _until_done)


def endless(size: int = 64) -> bytes:
    """As `work`, with a condition that is always true: no call ever returns."""
    return _loop(size, lambda graph, _: graph.constant("true", np.array([True])))


def _until_done(graph: SubgraphWriter, state: _State) -> Tensor:
    """True while `done` is less than `iterations`."""
    done, iterations, _ = state
    condition = graph.tensor("condition", TensorType.BOOL, (1,))
    graph.operator(BuiltinOperator.LESS, [done, iterations], [condition])
    return condition


def _loop(size: int, condition: Callable[[SubgraphWriter, _State], Tensor]) -> bytes:
    model = ModelWriter()
    graph, test, body = model.subgraph(), model.subgraph("condition"), model.subgraph("body")
    iterations = graph.input("iterations", _INT32, (1,))
    zero = graph.constant("zero", np.zeros(1, np.int32))
    # A matrix of 1/size is its own square, exactly, where size is a power of two.
    matrix = _filled(graph, "matrix", (size, size), np.array(1 / size, np.float32))
    done, wanted = graph.tensor("done", _INT32, (1,)), graph.tensor("wanted", _INT32, (1,))
    last = graph.tensor("last", _FLOAT, (size, size))
    graph.operator(
        BuiltinOperator.WHILE,
        [zero, iterations, matrix],
        [done, wanted, last],
        cond_subgraph_index=test.index,
        body_subgraph_index=body.index,
    )
    graph.output(done)

    test.output(condition(test, _state(test, size)))

    count, wanted, matrix = _state(body, size)
    one = body.constant("one", np.ones(1, np.int32))
    next_count = body.tensor("next_done", _INT32, (1,))
    body.operator(BuiltinOperator.ADD, [count, one], [next_count])
    product = body.tensor("product", _FLOAT, (size, size))
    body.operator(BuiltinOperator.BATCH_MATMUL, [matrix, matrix], [product])
    body.output(next_count, wanted, product)

    model.signature("serving_default", graph, {"iterations": iterations}, {"done": done})
    return model.write()


def _state(graph: SubgraphWriter, size: int) -> _State:
    """The loop's state as a subgraph's inputs."""
    return (
        graph.input("done", _INT32, (1,)),
        graph.input("iterations", _INT32, (1,)),
        graph.input("matrix", _FLOAT, (size, size)),
    )


def _filled(graph: SubgraphWriter, name: str, shape: tuple[int, ...], value: Array) -> Tensor:
    """A tensor of static shape with one value everywhere, made at run time: it costs no bytes."""
    sizes = graph.constant(f"{name}/shape", np.array(shape, np.int32))
    result = graph.tensor(name, _FLOAT, shape)
    graph.operator(
        BuiltinOperator.BROADCAST_TO,
        [graph.constant(f"{name}/value", value), sizes],
        [result],
        version=2,
    )
    return result


def memory_hog(gibibytes: int = 4) -> bytes:
    """x: float32[1] → y: float32[1] = x, by way of a tensor of so many GiB.

    The runtime asks for the memory when the model is loaded, and touches it at the first call.
    """
    model = ModelWriter()
    graph = model.subgraph()
    elements = gibibytes * _BYTES_PER_GIBIBYTE // 4
    # Two dimensions: the number of elements may pass 2^31, no dimension may.
    shape = (elements // 1024, 1024)
    x = graph.input("x", _FLOAT, (1,))
    sizes = graph.constant("shape", np.array(shape, np.int32))
    large = graph.tensor("large", _FLOAT, shape)
    graph.operator(BuiltinOperator.BROADCAST_TO, [x, sizes], [large], version=2)
    graph.output(_maximum(graph, large, [0, 1]))
    return model.write()


def memory_hog_on_demand() -> bytes:
    """mebibytes: int32[1] → y: float32[1] = 1, by way of so many MiB allocated in the call."""
    model = ModelWriter()
    graph = model.subgraph()
    mebibytes = graph.input("mebibytes", _INT32, (1,))
    factor = graph.constant("floats_per_mebibyte", np.array([1 << 18], np.int32))
    elements = graph.tensor("elements", _INT32, (1,))
    graph.operator(BuiltinOperator.MUL, [mebibytes, factor], [elements])
    large = graph.tensor("large", _FLOAT, (1,), shape_signature=(-1,))
    one = graph.constant("one", np.array(1, np.float32))
    graph.operator(BuiltinOperator.FILL, [elements, one], [large], version=3)
    graph.output(_maximum(graph, large, [0]))
    return model.write()


def _maximum(graph: SubgraphWriter, large: Tensor, axes: list[int]) -> Tensor:
    """The largest of all elements, as float32[1]."""
    indices = graph.constant("axes", np.array(axes, np.int32))
    maximum = graph.tensor("maximum", _FLOAT, ())
    graph.operator(BuiltinOperator.REDUCE_MAX, [large, indices], [maximum], keep_dims=False)
    return reshape(graph, maximum, (1,), "y")
