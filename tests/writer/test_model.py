"""The writer's files: layout, refusals, and what FlatBuffers' own reader finds in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from loader_service.writer.encode import encode
from loader_service.writer.metadata import Description, TensorDescription, pack
from loader_service.writer.model import ModelWriter
from loader_service.writer.tensors import BlockwiseQuantization, Quantization, pack_strings


@pytest.fixture(scope="module")
def generated() -> Any:
    return pytest.importorskip(
        "ai_edge_litert.schema_py_generated", reason="ai_edge_litert is not installed here"
    )


def _constants(count: int) -> ModelWriter:
    """A model of constants with lengths that are no multiple of anything."""
    model = ModelWriter("constants")
    graph = model.subgraph()
    for number in range(count):
        graph.constant(f"constant {number}", np.arange(number + 1, dtype=np.int8))
    return model


def test_the_file_begins_with_its_identifier() -> None:
    assert small.add()[4:8] == b"TFL3"


def test_constants_are_aligned_to_16_bytes() -> None:
    data = _constants(20).write()
    for number in range(8, 20):
        content = bytes(range(number + 1))
        # The length precedes the content.
        position = data.index((number + 1).to_bytes(4, "little") + content) + 4
        assert position % 16 == 0


def test_the_first_buffer_is_empty_and_shared(generated: Any) -> None:
    model = generated.ModelT.InitFromPackedBuf(small.two_signatures())
    assert len(model.buffers) == 1
    assert model.buffers[0].data is None
    assert {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors} == {0}


def test_every_part_is_found_by_flatbuffers_own_reader(generated: Any) -> None:
    writer = ModelWriter("all parts")
    graph = writer.subgraph("named")
    scales = graph.constant("scales", np.ones(2, np.float16))
    zeros = graph.constant("zeros", np.zeros(2, np.int32))
    x = graph.input(
        "x",
        TensorType.INT8,
        (1, 4),
        shape_signature=(-1, 4),
        quantization=Quantization((0.5, 0.25), (1, -2), 1),
    )
    blocks = graph.tensor(
        "blocks", TensorType.INT4, (64,), quantization=BlockwiseQuantization(scales, zeros, 32)
    )
    state = graph.tensor("state", TensorType.FLOAT32, (3,), is_variable=True)
    graph.operator("Mine", [x, None, blocks], [state], version=7, custom_options=b"\1\2")
    graph.operator(BuiltinOperator.STABLEHLO_CASE, [x], [state], version=2)
    graph.output(state)
    writer.signature("key", graph, {"in": x}, {"out": state})
    writer.metadata("note", b"content")
    model = generated.ModelT.InitFromPackedBuf(writer.write())

    assert (model.version, model.description) == (3, b"all parts")
    (read,) = model.subgraphs
    assert read.name == b"named"
    tensors = {tensor.name: tensor for tensor in read.tensors}
    assert list(tensors[b"x"].shapeSignature) == [-1, 4]
    quantization = tensors[b"x"].quantization
    assert list(quantization.scale) == [0.5, 0.25]
    assert list(quantization.zeroPoint) == [1, -2]
    assert quantization.quantizedDimension == 1
    details = tensors[b"blocks"].quantization.details
    assert (details.scales, details.zeroPoints, details.blockSize) == (0, 1, 32)
    assert tensors[b"state"].isVariable
    assert bytes(model.buffers[tensors[b"scales"].buffer].data) == b"\0\x3c\0\x3c"
    assert [
        (code.deprecatedBuiltinCode, code.builtinCode, code.customCode, code.version)
        for code in model.operatorCodes
    ] == [(32, 32, b"Mine", 7), (127, 209, None, 2)]
    assert list(read.operators[0].inputs) == [2, -1, 3]
    assert bytes(read.operators[0].customOptions) == b"\1\2"
    (signature,) = model.signatureDefs
    assert (signature.signatureKey, signature.subgraphIndex) == (b"key", 0)
    assert [(port.name, port.tensorIndex) for port in signature.inputs] == [(b"in", 2)]
    (entry,) = model.metadata
    assert (entry.name, bytes(model.buffers[entry.buffer].data)) == (b"note", b"content")


def test_options_reach_the_operator(generated: Any) -> None:
    model = generated.ModelT.InitFromPackedBuf(small.cast(TensorType.INT32, TensorType.BOOL))
    options = model.subgraphs[0].operators[0].builtinOptions
    assert (options.inDataType, options.outDataType) == (TensorType.INT32, TensorType.BOOL)


def test_a_tensor_of_another_subgraph_is_refused() -> None:
    model = ModelWriter()
    first, second = model.subgraph(), model.subgraph()
    x = first.input("x", TensorType.FLOAT32, (1,))
    with pytest.raises(ValueError, match="'x' belongs to subgraph 0"):
        second.operator(BuiltinOperator.RELU, [x], [x])


@pytest.mark.parametrize("code", [BuiltinOperator.RELU, BuiltinOperator.ADD, "Mine"])
def test_an_option_that_does_not_exist_is_refused(code: BuiltinOperator | str) -> None:
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,))

    def write() -> None:
        graph.operator(code, [x], [x], axis=1)
        model.write()

    with pytest.raises(KeyError, match="axis"):
        write()


def test_a_value_of_the_wrong_kind_is_refused() -> None:
    from loader_service.runtime.schema import MODEL

    with pytest.raises(TypeError, match=r"Model\.version takes a number, not str"):
        encode(MODEL, {"version": "3"}, b"TFL3")
    with pytest.raises(TypeError, match=r"Model\.description cannot take int"):
        encode(MODEL, {"description": 3}, b"TFL3")


def test_strings_are_packed_with_their_offsets() -> None:
    assert pack_strings([b"ab", b"", b"c"]) == (
        np.array([3, 20, 22, 22, 23], "<i4").tobytes() + b"abc"
    )


def test_the_same_model_is_written_to_the_same_bytes() -> None:
    description = Description(
        "name", "text", "1", "author", "licence", [], [TensorDescription("y", "", "labels.txt")]
    )
    files = []
    for _ in range(2):
        model = _constants(3)
        model.metadata("TFLITE_METADATA", description.encode())
        files.append(pack(model.write(), {"labels.txt": b"a\nb\n"}))
    assert files[0] == files[1]
