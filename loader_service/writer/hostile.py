"""Models that fail: refused at load, failing at a call, or ending the process that runs them.

What each does was observed on LiteRT 2.3.0 and tflite-runtime 2.14.0, on x86-64, and is asserted
by the tests of the writer; where the two differ, the docstring says so.
"""

from __future__ import annotations

import numpy as np

from loader_service.runtime.schema import SCHEMA_VERSION
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType

from . import small
from .model import ModelWriter

_FLOAT, _INT32 = TensorType.FLOAT32, TensorType.INT32


def abort_at_load() -> bytes:
    """SUB on int16 without quantization: a failed check calls abort() at allocation of tensors."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.INT16, (4,))
    y = graph.tensor("y", TensorType.INT16, (4,))
    graph.operator(BuiltinOperator.SUB, [x, x], [y])
    graph.output(y)
    return model.write()


def stack_overflow_at_load() -> bytes:
    """IF whose branch is the subgraph it stands in: preparing it never ends; SIGSEGV at load."""
    model = ModelWriter()
    main, branch = model.subgraph(), model.subgraph("branch")
    for graph in (main, branch):
        x = graph.input("x", _FLOAT, (1,))
        y = graph.tensor("y", _FLOAT, (1,))
        graph.operator(
            BuiltinOperator.IF,
            [graph.constant("true", np.array([True])), x],
            [y],
            then_subgraph_index=branch.index,
            else_subgraph_index=branch.index,
        )
        graph.output(y)
    return model.write()


def division_fault() -> bytes:
    """x: int32[1] → y = x mod -1 (FLOOR_MOD), which is 0; but x = -2^31 ends in SIGFPE."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _INT32, (1,))
    y = graph.tensor("y", _INT32, (1,))
    minus_one = graph.constant("minus_one", np.array([-1], np.int32))
    graph.operator(BuiltinOperator.FLOOR_MOD, [x, minus_one], [y])
    graph.output(y)
    return model.write()


def custom_operator(code: str = "NobodyKnowsThis") -> bytes:
    """x: float32[1] → y by a custom operator that no runtime has: refused at load."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", _FLOAT, (1,))
    y = graph.tensor("y", _FLOAT, (1,))
    graph.operator(code, [x], [y], custom_options=b"options")
    graph.output(y)
    return model.write()


def flex_operator() -> bytes:
    """One operator of full TensorFlow ("Flex"): refused at load by its name's prefix."""
    return custom_operator("FlexSoftplus")


def add_strings() -> bytes:
    """x: string[1] → y = x + x: loads, and fails at each call, for ADD does not know strings."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.STRING, (1,))
    y = graph.tensor("y", TensorType.STRING, (1,))
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    graph.output(y)
    return model.write()


def gather() -> bytes:
    """index: int32[1] → y = (10, 20, 30)[index]: fails at the call with an index out of range."""
    model = ModelWriter()
    graph = model.subgraph()
    index = graph.input("index", _INT32, (1,))
    values = graph.constant("values", np.array([10, 20, 30], np.float32))
    y = graph.tensor("y", _FLOAT, (1,))
    graph.operator(BuiltinOperator.GATHER, [values, index], [y])
    graph.output(y)
    return model.write()


def wrong_schema_version() -> bytes:
    """A sound file of a schema version that does not exist."""
    model = ModelWriter(version=SCHEMA_VERSION + 1)
    model.subgraph()
    return model.write()


def no_subgraphs() -> bytes:
    """A sound file without a subgraph."""
    return ModelWriter().write()


def text_instead() -> bytes:
    """Not a FlatBuffer at all."""
    return b"This is a text, and no model at all.\n" * 4


def truncated() -> bytes:
    """The first half of a sound file; tflite-runtime 2.14, which verifies nothing, may crash."""
    data = small.add()
    return data[: len(data) // 2]


def root_outside() -> bytes:
    """A sound file whose root offset points behind its end; tflite-runtime 2.14 may crash."""
    return (0x7FFFFFF0).to_bytes(4, "little") + small.add()[4:]
