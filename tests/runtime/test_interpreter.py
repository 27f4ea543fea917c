"""The engine on small models of every type and shape, against the plain library where it can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from loader_service.runtime.failures import (
    InvalidInput,
    InvalidModel,
    ModelFailed,
    UnsupportedModel,
)
from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small, stateful
from loader_service.writer.model import ModelWriter
from model_loader_wire.data_types import DataType
from tests.runtime.engines import (
    TFLITE_RUNTIME,
    Array,
    Plain,
    call,
    load,
    random_inputs,
    signature_number,
)

NUMPY_TYPES = [
    "float32",
    "float16",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
]
RAW_TYPES = {
    # Type: bytes of five elements.
    TensorType.INT4: 3,
    TensorType.UINT4: 3,
    TensorType.INT2: 2,
    TensorType.BFLOAT16: 10,
    TensorType.FLOAT8_E4M3FN: 5,
    TensorType.FLOAT8_E5M2: 5,
}
NEWER_TYPES = RAW_TYPES.keys() - {TensorType.INT4}
"""Types that tflite-runtime 2.14 refuses to load."""


@pytest.mark.parametrize("name", NUMPY_TYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 1, 3), (0,), (3, 0)])
@pytest.mark.parametrize("make", [small.identity, small.copy])
def test_every_numpy_type_passes_through(
    runtime: InterpreterRuntime,
    name: str,
    shape: tuple[int, ...],
    make: Callable[[TensorType, tuple[int, ...]], bytes],
) -> None:
    """The output of `identity` is the input's own memory, that of `copy` is not."""
    content = make(TensorType[name.upper()], shape)
    model = load(runtime, content)
    (tensor,) = model.description.signatures[0].inputs
    complex_ = name.startswith("complex")
    assert tensor.data_type is (DataType.UNKNOWN if complex_ else DataType[name.upper()])
    value = np.arange(np.prod(shape)).reshape(shape).astype(name)
    assert tensor.byte_length == value.nbytes
    assert call(model, [value]) == [(shape, value.tobytes())]
    assert call(model, [value]) == Plain(runtime, content).call([value])


@pytest.mark.parametrize("tensor_type", RAW_TYPES, ids=lambda type_: type_.name)
def test_types_without_a_name_are_raw_bytes(
    runtime: InterpreterRuntime, tensor_type: TensorType
) -> None:
    """Types that the Model Loader API does not list: packed as the runtime has them."""
    content = small.identity(tensor_type, (5,))
    if runtime.name == TFLITE_RUNTIME and tensor_type in NEWER_TYPES:
        with pytest.raises(UnsupportedModel, match="Unsupported data type"):
            load(runtime, content)
        return
    model = load(runtime, content)
    (tensor,) = model.description.signatures[0].inputs
    assert (tensor.data_type, tensor.byte_length) == (DataType.UNKNOWN, RAW_TYPES[tensor_type])
    data = bytes(range(1, RAW_TYPES[tensor_type] + 1))
    (view,) = model.prepare_inputs(0, [(5,)])
    assert view is not None
    view[:] = data
    model.invoke(0)
    (output,) = model.outputs(0)
    assert (output.data_type, output.dimensions, bytes(output.data)) == (
        DataType.UNKNOWN,
        (5,),
        data,
    )


@pytest.mark.parametrize("tensor_type", [TensorType.RESOURCE, TensorType.VARIANT])
def test_handles_are_not_data(runtime: InterpreterRuntime, tensor_type: TensorType) -> None:
    with pytest.raises(UnsupportedModel, match="cannot be an input or output"):
        load(runtime, small.identity(tensor_type, (1,)))


def test_scalars(runtime: InterpreterRuntime) -> None:
    model = load(runtime, small.scalar())
    value = np.array(41, np.float32)
    assert model.description.signatures[0].inputs[0].dimensions == ()
    for _ in range(2):
        assert call(model, [value]) == [((), np.float32(42).tobytes())]


@pytest.mark.parametrize("name", [*NUMPY_TYPES, "string"])
def test_scalars_of_every_type(runtime: InterpreterRuntime, name: str) -> None:
    content = small.identity(TensorType[name.upper()], ())
    model = load(runtime, content)
    if name == "string":
        value: Array = np.array("ö".encode(), object)
        assert call(model, [value]) == Plain(runtime, content).call([value])
    elif name == "uint16" and runtime.name == TFLITE_RUNTIME:
        # Its set_tensor does not know the type, and a scalar has no other way in.
        with pytest.raises(ModelFailed, match="Cannot set tensor"):
            call(model, [np.array(1, name)])
    else:
        value = np.array(1, name)
        assert call(model, [value]) == [((), value.tobytes())]


def test_strings(runtime: InterpreterRuntime) -> None:
    """Empty ones, NUL bytes and UTF-8, of several ranks."""
    for shape in ((4,), (2, 2), (1, 4, 1), (0,)):
        content = small.identity(TensorType.STRING, shape)
        model = load(runtime, content)
        value = np.empty(shape, object)
        value.reshape(-1)[:] = [b"", b"one\0", "zwei ö".encode(), b"x" * 70_000][: value.size]
        answer = call(model, [value])
        assert answer == Plain(runtime, content).call([value])


def test_strings_are_not_steady(runtime: InterpreterRuntime) -> None:
    """To ask where they lie ends the process."""
    for content in (small.identity(TensorType.STRING, (2,)), small.copy(TensorType.STRING, (2,))):
        model = load(runtime, content)
        call(model, [np.array([b"a", b"b"], object)])
        assert model.steady(0) is None


def test_strings_are_counted(runtime: InterpreterRuntime) -> None:
    model = load(runtime, small.identity(TensorType.STRING, (2,)))
    assert model.prepare_inputs(0, [(2,)]) == [None]
    with pytest.raises(InvalidInput, match="3 strings"):
        model.set_strings(0, 0, (2,), [b"a", b"b", b"c"])
    other = load(runtime, small.add())
    other.prepare_inputs(0, [(1,)])
    with pytest.raises(InvalidInput, match="no strings"):
        other.set_strings(0, 0, (1,), [b"a"])


def test_open_sizes_are_none_and_follow_the_caller(runtime: InterpreterRuntime) -> None:
    for content, declared, shapes in (
        (small.dynamic_batch(), (None, 4), [(1, 4), (3, 4), (2, 4), (1, 4)]),
        (small.dynamic_image(), (1, None, None, 3), [(1, 5, 2, 3), (1, 1, 1, 3)]),
    ):
        model, plain = load(runtime, content), Plain(runtime, content)
        signature = model.description.signatures[0]
        assert signature.inputs[0].dimensions == declared
        assert signature.inputs[0].byte_length is None
        assert signature.outputs[0].dimensions == declared
        for shape in shapes:
            value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            assert call(model, [value]) == plain.call([value]) == [(shape, (2 * value).tobytes())]


def test_fixed_sizes_stay_fixed(runtime: InterpreterRuntime) -> None:
    model = load(runtime, small.dynamic_batch())
    for shapes in ([(1, 5)], [(4,)], [(1, 1, 4)], [(-1, 4)], [], [(1, 4), (1, 4)]):
        with pytest.raises(InvalidInput):
            model.prepare_inputs(0, shapes)
    with pytest.raises(InvalidInput, match="size above"):
        model.prepare_inputs(0, [(2**31, 4)])
    value = np.ones((2, 4), np.float32)
    assert call(model, [value]) == [((2, 4), (2 * value).tobytes())]


def test_outputs_of_unknown_shape(runtime: InterpreterRuntime) -> None:
    content = small.dynamic_output(6)
    model, plain = load(runtime, content), Plain(runtime, content)
    (output,) = model.description.signatures[0].outputs
    assert (output.dimensions, output.byte_length) == ((None, 1), None)
    for places in ([0, 5], [], [1, 2, 3, 4], [3]):
        value = np.zeros(6, bool)
        value[places] = True
        expected = np.array(places, np.int64).tobytes()
        assert call(model, [value]) == plain.call([value]) == [((len(places), 1), expected)]


def test_an_output_without_open_sizes_in_the_file_follows_the_inputs(
    runtime: InterpreterRuntime,
) -> None:
    """A file may leave the output's sizes to the runtime: nothing is promised of them then."""
    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1, 2), shape_signature=(-1, 2))
    y = graph.tensor("y", TensorType.FLOAT32, ())
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    graph.output(y)
    model = load(runtime, writer.write())
    assert model.description.signatures[0].outputs[0].dimensions is None
    value = np.ones((3, 2), np.float32)
    assert call(model, [value]) == [((3, 2), (2 * value).tobytes())]


def test_an_output_that_contradicts_its_file(runtime: InterpreterRuntime) -> None:
    """Where it shows at load nothing is promised; where it shows in the run, the call fails."""

    def content(shape: tuple[int, ...], shape_signature: tuple[int, ...]) -> bytes:
        writer = ModelWriter()
        graph = writer.subgraph()
        x = graph.input("x", TensorType.BOOL, (4,))
        y = graph.tensor("y", TensorType.INT64, shape, shape_signature=shape_signature)
        graph.operator(BuiltinOperator.WHERE, [x], [y])
        graph.output(y)
        return writer.write()

    value = [np.array([True, False, True, True])]
    model = load(runtime, content((1, 1), (-1, 7)))
    assert model.description.signatures[0].outputs[0].dimensions is None
    assert call(model, value)[0][0] == (3, 1)
    model = load(runtime, content((1, 7), (-1, 7)))
    with pytest.raises(ModelFailed, match=r"declares \(None, 7\)"):
        call(model, value)


def test_an_output_that_becomes_another_type_in_the_run(runtime: InterpreterRuntime) -> None:
    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.BOOL, (4,))
    y = graph.tensor("y", TensorType.BOOL, (1, 1), shape_signature=(-1, 1))
    graph.operator(BuiltinOperator.WHERE, [x], [y])
    graph.output(y)
    model = load(runtime, writer.write())
    with pytest.raises(ModelFailed, match="became int64, and the model declares bool"):
        call(model, [np.array([True, False, True, True])])


def test_names_that_are_no_text(runtime: InterpreterRuntime) -> None:
    content = small.sum_and_difference().replace(b"difference", b"\xff\xfefference")
    names = [one.name for one in load(runtime, content).description.signatures[0].outputs]
    assert names == ["sum", "\ufffd\ufffdfference"]
    signature = small.two_signatures().replace(b"subtract", b"\xff\xfebtract")
    with pytest.raises(InvalidModel):
        load(runtime, signature)


def test_no_inputs_and_no_outputs(runtime: InterpreterRuntime) -> None:
    model = load(runtime, small.no_inputs())
    assert call(model, []) == [((2,), np.array([3, 4], np.float32).tobytes())]
    assert call(load(runtime, small.no_outputs()), [np.ones(2, np.float32)]) == []


def test_signatures_have_names_of_their_own(runtime: InterpreterRuntime) -> None:
    content = small.two_signatures()
    model, plain = load(runtime, content), Plain(runtime, content)
    assert [signature.name for signature in model.description.signatures] == [
        "",
        "add",
        "subtract",
    ]
    a, b = np.array([5, 7], np.float32), np.array([2, 3], np.float32)
    for name, expected in (("subtract", a - b), ("add", a + b), ("subtract", a - b)):
        number = signature_number(model, name)
        names = [tensor.name for tensor in model.description.signatures[number].inputs]
        given = {"a": a, "b": b}
        (answer,) = call(model, [given[one] for one in names], number)
        assert [answer] == list(plain.call_signature(name, given).values())
        assert answer == ((2,), expected.tobytes())


def test_signatures_share_the_state(runtime: InterpreterRuntime) -> None:
    """A resource variable that the signature `add` moves is what `read` shows."""
    model = load(runtime, stateful.counter())
    add, read = signature_number(model, "add"), signature_number(model, "read")

    def number(answer: list[tuple[tuple[int, ...], bytes]]) -> float:
        return float(np.frombuffer(answer[0][1], np.float32)[0])

    one = [np.array([1.5], np.float32)]
    assert [number(call(model, one, add)) for _ in range(3)] == [1.5, 3.0, 4.5]
    assert number(call(model, [], read)) == 4.5
    assert number(call(model, one)) == 6.0
    model.reset()
    assert number(call(model, one, add)) == 1.5


def test_a_signature_that_cannot_run_hinders_no_other(runtime: InterpreterRuntime) -> None:
    """A model trained on a device has such: what saves it needs operators that are not there."""
    writer = ModelWriter()
    for key, code in (("infer", BuiltinOperator.ADD), ("save", "FlexSave")):
        graph = writer.subgraph(key)
        x = graph.input("x", TensorType.FLOAT32, (1,))
        y = graph.tensor("y", TensorType.FLOAT32, (1,))
        graph.operator(code, [x, x] if key == "infer" else [x], [y])
        graph.output(y)
        writer.signature(key, graph, {"x": x}, {"y": y})
    model = load(runtime, writer.write())
    infer, save = signature_number(model, "infer"), signature_number(model, "save")
    one, two = [np.ones(1, np.float32)], [((1,), np.float32(2).tobytes())]
    assert model.description.signatures[save].outputs[0].dimensions is None
    assert call(model, one, infer) == two
    with pytest.raises(UnsupportedModel, match="FlexSave"):
        call(model, one, save)
    assert call(model, one, infer) == two


def test_placeholder_sizes_need_not_fit(runtime: InterpreterRuntime) -> None:
    """Where sizes are open, those in the file may be ones that no operator takes."""
    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,), shape_signature=(-1,))
    pairs = graph.constant("pairs", np.array([-1, 2], np.int32))
    y = graph.tensor("y", TensorType.FLOAT32, (1, 2), shape_signature=(-1, 2))
    graph.operator(BuiltinOperator.RESHAPE, [x, pairs], [y])
    graph.output(y)
    content = writer.write()
    with pytest.raises(RuntimeError):
        Plain(runtime, content)
    model = load(runtime, content)
    for size in (4, 2):
        value = np.arange(size, dtype=np.float32)
        assert call(model, [value]) == [((size // 2, 2), value.tobytes())]
    with pytest.raises(ModelFailed, match="RESHAPE"):
        model.prepare_inputs(0, [(3,)])


def test_reset_brings_back_variable_tensors(runtime: InterpreterRuntime) -> None:
    content = stateful.running_sum(3)
    model, plain = load(runtime, content), Plain(runtime, content)
    inputs = [[np.array([[value]], np.float32)] for value in (1, 2, 3, 4)]
    first = [call(model, value) for value in inputs]
    assert first == [plain.call(value) for value in inputs]
    assert len({answer[0][1] for answer in first}) == 4
    model.reset()
    assert [call(model, value) for value in inputs] == first


def test_two_models_share_no_state(runtime: InterpreterRuntime) -> None:
    content = stateful.counter()
    one, other = load(runtime, content), load(runtime, content)
    value = [np.array([1], np.float32)]
    assert call(one, value) == call(other, value)
    assert call(one, value) == call(other, value)


@pytest.mark.parametrize(
    ("make", "inputs", "outputs"),
    [
        (small.repeated_names, ["x", "x:1"], ["y", "y:1"]),
        (small.empty_names, ["input", "input:1"], ["output", "output:1"]),
        (small.sum_and_difference, ["a", "b"], ["sum", "difference"]),
    ],
)
def test_names_are_distinct(
    runtime: InterpreterRuntime,
    make: Callable[[], bytes],
    inputs: list[str],
    outputs: list[str],
) -> None:
    model = load(runtime, make())
    signature = model.description.signatures[0]
    assert [tensor.name for tensor in signature.inputs] == inputs
    assert [tensor.name for tensor in signature.outputs] == outputs
    a, b = np.array([5, 7], np.float32), np.array([2, 3], np.float32)
    assert [data for _, data in call(model, [a, b])] == [(a + b).tobytes(), (a - b).tobytes()]


def test_an_input_listed_twice_is_one_tensor(runtime: InterpreterRuntime) -> None:
    writer = ModelWriter()
    graph = writer.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,), shape_signature=(-1,))
    graph._inputs.append(x.index)
    y = graph.tensor("y", TensorType.FLOAT32, (1,), shape_signature=(-1,))
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    graph.output(y)
    model = load(runtime, writer.write())
    with pytest.raises(InvalidInput, match="one tensor"):
        model.prepare_inputs(0, [(1,), (2,)])
    value = np.ones(2, np.float32)
    assert call(model, [value, value]) == [((2,), (2 * value).tobytes())]


def test_answers_are_read_once_there_are_any(runtime: InterpreterRuntime) -> None:
    model = load(runtime, small.two_signatures())
    inputs = random_inputs(model.description.signatures[1])
    with pytest.raises(ModelFailed, match="no answer"):
        model.outputs(1)
    call(model, inputs, 1)
    with pytest.raises(ModelFailed, match="no answer"):
        model.outputs(2)


def test_the_runtime_is_told(runtime: InterpreterRuntime) -> None:
    description = load(runtime, small.add(), threads=2).description
    assert description.runtime == f"{runtime.name} {runtime.version}"
    assert description.threads == 2
    assert (description.kernels, description.note) == ("xnnpack", "")
