"""Computing: the call forms, the data types, and what is refused before a byte is sent."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.data_types import DataType
from model_loader_wire.description import TensorDescription
from model_loader_wire.frames import Entry
from model_loader_wire.limits import Limits
from tests.client import workers
from tests.client.conftest import Load, put
from tests.client.fake_service import FakeService, echoing, signature, tensor

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def loaded(service: FakeService, road: ml.Connection, *tensors: Any) -> ml.MLModel:
    """Load a model whose outputs are its inputs."""
    loader = ml.MLModelLoader(ml.create_context(connection=road))
    return loader.load(put(service, echoing(*tensors)))


def test_bare_input_gives_bare_output(service: FakeService, road: ml.Connection) -> None:
    model = loaded(service, road, tensor("x", DataType.FLOAT32, (2, 3)))
    answer = model.compute(X)
    assert isinstance(answer, np.ndarray)
    np.testing.assert_array_equal(answer, X)
    assert answer.flags.writeable
    assert answer.flags.owndata or answer.base is not None


def test_dict_input_gives_dict_output(service: FakeService, road: ml.Connection) -> None:
    model = loaded(service, road, tensor("x", DataType.FLOAT32, (2, 3)))
    answer = model.compute({"x": X})
    assert list(answer) == ["out:x"]
    np.testing.assert_array_equal(answer["out:x"], X)


def test_bare_input_gives_dict_for_two_outputs(load: Load) -> None:
    x = tensor("x", DataType.FLOAT32, (2,))

    def twice(channel: Any, frame: workers.Frame) -> None:
        channel.sendall(
            workers.answer_bytes(frame.header.sequence, frame.entries * 2, frame.payload * 2)
        )

    model = load(
        [signature([x], [tensor("a", x.data_type, (2,)), tensor("b", x.data_type, (2,))])], twice
    )
    answer = model.compute(np.array([1, 2], np.float32))
    assert {name: value.tolist() for name, value in answer.items()} == {"a": [1, 2], "b": [1, 2]}


def test_model_without_inputs_takes_an_empty_dict(load: Load) -> None:
    def five(channel: Any, frame: workers.Frame) -> None:
        entry = Entry(DataType.INT32, (), 4)
        channel.sendall(workers.answer_bytes(frame.header.sequence, [entry], [b"\5\0\0\0"]))

    model = load([signature([], [tensor("y", DataType.INT32, ())])], five)
    assert model.compute({})["y"] == 5
    with pytest.raises(ml.DataError, match=r"give \{\}"):
        model.compute(X)


@pytest.mark.parametrize(
    "data_type", [item for item in DataType if item.element_size is not None], ids=str
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)], ids=str)
def test_every_data_type_and_shape(load: Load, data_type: DataType, shape: tuple[int, ...]) -> None:
    model = load(echoing(tensor("x", data_type, shape)))
    dtype = np.dtype("bool" if data_type is DataType.BOOL else data_type.api_name)
    value = (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
    answer = model.compute(value)
    assert answer.dtype == dtype
    assert answer.shape == shape
    assert answer.tobytes() == value.tobytes()


def test_dynamic_shapes(service: FakeService, road: ml.Connection) -> None:
    model = loaded(
        service,
        road,
        tensor("x", DataType.FLOAT32, (None, 3)),
        tensor("y", DataType.INT8, None),
    )
    for rows in (1, 5, 0, 70_000):
        x = np.full((rows, 3), rows, np.float32)
        y = np.full((rows, 1, 2), 7, np.int8)
        answer = model.compute({"x": x, "y": y})
        np.testing.assert_array_equal(answer["out:x"], x)
        np.testing.assert_array_equal(answer["out:y"], y)
    with pytest.raises(ml.DataError, match=r"takes dimensions \[\?, 3\], but \[2, 4\] came"):
        model.compute({"x": np.ones((2, 4), np.float32), "y": np.int8(1)})


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        ("a", (), b"a"),
        (b"a\0b", (), b"a\0b"),
        ("é", (1, 1), [["é".encode()]]),
        (["a", b"bc", ""], (3,), [b"a", b"bc", b""]),
        ([["a"], ["b"]], (2, 1), [[b"a"], [b"b"]]),
        (np.array(["x", "yy"]), (2,), [b"x", b"yy"]),
        (np.array([b"x", b"yy"]), (2,), [b"x", b"yy"]),
        ([], (0,), []),
    ],
)
def test_strings(
    service: FakeService, road: ml.Connection, value: Any, shape: Any, expected: Any
) -> None:
    model = loaded(service, road, tensor("x", DataType.STRING, shape))
    answer = model.compute(value)
    assert answer.dtype == object
    assert answer.shape == shape
    assert answer.tolist() == expected


def test_strings_refuse_other_elements(load: Load) -> None:
    model = load(echoing(tensor("x", DataType.STRING, (None,))))
    for wrong in ([1, 2], 5, [["a"], ["b", "c"]], np.array([1.0])):
        with pytest.raises(ml.DataError):
            model.compute(wrong)


def test_unknown_types_are_raw_bytes(service: FakeService, road: ml.Connection) -> None:
    raw = ml.MLTensor  # shape (2,) of an eight-byte element
    description = workers_description("x", (2,), 16)
    model = loaded(service, road, description)
    data = bytes(range(16))
    for value in (data, bytearray(data), np.frombuffer(data, np.uint8), raw(data, (2,))):
        answer = model.compute(value)
        assert answer.dtype == np.uint8
        assert answer.shape == (16,)
        assert answer.tobytes() == data
    with pytest.raises(ml.DataError, match="exactly 16 bytes, 15 came"):
        model.compute(data[:15])
    with pytest.raises(ml.DataError, match="raw bytes"):
        model.compute(np.zeros(2, np.complex64))


def workers_description(name: str, dimensions: tuple[int, ...], length: int) -> Any:
    """Describe a tensor of a type outside the list."""
    return TensorDescription(name, DataType.UNKNOWN, dimensions, length)


def test_values_that_carry_their_type_are_taken(load: Load) -> None:
    model = load(echoing(tensor("x", DataType.FLOAT32, (2, 3))))
    flat = array.array("f", X.reshape(-1).tolist())
    for value in (
        ml.MLTensor(X, (2, 3)),
        ml.MLTensor(X.reshape(-1), [2, 3]),
        ml.MLTensor(flat, [2, 3]),
        X.data,
        np.asfortranarray(X),
        X[:, ::-1][:, ::-1],
        X.T.copy().T,
    ):
        np.testing.assert_array_equal(model.compute(value), X)
    read_only = X.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(model.compute(read_only), X)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (X.astype(np.float64), r"is float32, but an array of float64 came.*astype\(numpy.float32"),
        (X.astype(">f4"), "newbyteorder"),
        ([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], r"numpy.array\(value, dtype=numpy.float32\)"),
        (1.0, "not float"),
        (None, "not NoneType"),
        (X.reshape(3, 2), r"takes dimensions \[2, 3\], but \[3, 2\] came"),
        (X.tobytes(), r"plain bytes came: use numpy\.frombuffer\(value, dtype=numpy\.float32"),
        (ml.MLTensor(np.arange(5, dtype=np.float32).data, (2, 3)), "does not fill"),
        (np.ma.masked_array(X), "masked"),
        ({}, "missing: 'x'"),
        ({"z": X}, "missing: 'x'; not known: 'z'; the inputs are 'x'"),
        ({"x": X, "z": X}, "not known: 'z'"),
        ({1: X, "x": X}, "not known: '1'"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_is_sent(
    load: Load, service: FakeService, value: Any, message: str
) -> None:
    frames = []

    def note(channel: Any, frame: workers.Frame) -> None:
        frames.append(frame)
        workers.echo(channel, frame)

    model = load(None, note)
    with pytest.raises(ml.DataError, match=message):
        model.compute(value)
    assert frames == []
    np.testing.assert_array_equal(model.compute(X), X)
    assert [frame.header.sequence for frame in frames] == [1]


def test_tensor_dimensions_are_checked_when_it_is_made() -> None:
    for wrong in (-1, [-1], ["a"], [1.5], [True]):
        with pytest.raises(ml.ConstraintError):
            ml.MLTensor(X, wrong)  # type: ignore[arg-type]
    with pytest.raises(ml.ConstraintError, match="does not fill"):
        ml.MLTensor(X, [7])
    assert repr(ml.MLTensor(X)) == "MLTensor(float32, dimensions=[2, 3])"


def test_inputs_above_tensor_bytes_are_refused(service: FakeService) -> None:
    content = put(service, echoing(tensor("x", DataType.UINT8, (None,))))
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection, limits=Limits(tensor_bytes=100)) as context,
    ):
        model = ml.MLModelLoader(context).load(content)
        model.compute(np.zeros(100, np.uint8))
        with pytest.raises(ml.QuotaExceededError) as caught:
            model.compute(np.zeros(101, np.uint8))
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == (
        "tensor_bytes",
        101,
        100,
    )


def test_static_inputs_above_tensor_bytes_are_refused(service: FakeService) -> None:
    content = put(service)
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection, limits=Limits(tensor_bytes=23)) as context,
    ):
        model = ml.MLModelLoader(context).load(content)
        with pytest.raises(ml.QuotaExceededError, match="24 bytes, the limit tensor_bytes is 23"):
            model.compute(X)


def test_preallocated_outputs_are_filled_in_place(
    service: FakeService, road: ml.Connection
) -> None:
    model = loaded(service, road, tensor("x", DataType.FLOAT32, (2, 3)))
    out = np.zeros((2, 3), np.float32)
    flat = np.zeros(6, np.float32)
    cases: list[tuple[Any, Any]] = [
        (out, out),
        ({"out:x": out}, out),
        ([out], out),
        (ml.MLTensor(out, (2, 3)), out),
        (ml.MLTensor(flat, (2, 3)), flat),
    ]
    for given, target in cases:
        target[...] = 0
        assert model.compute(X, given) is None
        np.testing.assert_array_equal(target.reshape(2, 3), X)
    assert model.compute({"x": X}, outputs=out) is None


def test_large_preallocated_outputs(load: Load) -> None:
    shape = (300, 1000)
    model = load(echoing(tensor("x", DataType.FLOAT64, shape), tensor("y", DataType.INT8, (3,))))
    x = np.random.default_rng(0).normal(size=shape)
    y = np.array([1, 2, 3], np.int8)
    out: dict[str, Any] = {"out:x": np.zeros(shape), "out:y": np.zeros(3, np.int8)}
    for _ in range(3):
        assert model.compute({"x": x, "y": y}, out) is None
        np.testing.assert_array_equal(out["out:x"], x)
        np.testing.assert_array_equal(out["out:y"], y)
        out["out:x"][:] = 0


def test_preallocated_strings_and_raw_bytes(service: FakeService, road: ml.Connection) -> None:
    model = loaded(
        service, road, tensor("s", DataType.STRING, (2,)), workers_description("r", (2,), 4)
    )
    strings = np.empty(2, object)
    raw = np.zeros((2, 2), np.uint8)
    inputs = {"s": ["a", "bcd"], "r": b"wxyz"}
    assert model.compute(inputs, {"out:s": strings, "out:r": raw}) is None
    assert strings.tolist() == [b"a", b"bcd"]
    assert raw.tobytes() == b"wxyz"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((2, 3)), "needs an array of float32, not float64"),
        (np.zeros((3, 2), np.float32), r"has dimensions \[2, 3\], the array \[3, 2\]"),
        (np.zeros((3, 2), np.float32).T, "C-contiguous"),
        ({}, r"missing: \['out:x'\]"),
        ({"out:x": X, "y": X}, r"not known: \['y'\]"),
        ([X, X], "2 arrays, the model has 1 outputs"),
        (b"......", "takes a numpy.ndarray, not bytes"),
        (ml.MLTensor(np.zeros(5, np.float32).data, (2, 3)), "takes a numpy.ndarray"),
    ],
)
def test_wrong_preallocated_outputs(load: Load, outputs: Any, message: str) -> None:
    model = load()
    with pytest.raises(ml.DataError, match=message):
        model.compute(X, outputs)
    read_only = np.zeros((2, 3), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ml.DataError, match="writable"):
        model.compute(X, read_only)
    np.testing.assert_array_equal(model.compute(X), X)


def test_preallocated_output_of_the_wrong_size_for_a_dynamic_shape(
    service: FakeService, road: ml.Connection
) -> None:
    model = loaded(service, road, tensor("x", DataType.FLOAT32, (None,)))
    with pytest.raises(ml.DataError, match=r"turned out to have dimensions \[4\].*still usable"):
        model.compute(np.zeros(4, np.float32), np.zeros(3, np.float32))
    out = np.zeros(4, np.float32)
    assert model.compute(np.ones(4, np.float32), out) is None
    assert out.tolist() == [1, 1, 1, 1]


def test_signatures(service: FakeService, road: ml.Connection) -> None:
    x, y = tensor("x", DataType.FLOAT32, (1,)), tensor("y", DataType.INT8, (2,))
    signatures = [
        signature([x], [tensor("a", DataType.FLOAT32, (1,))]),
        signature([y], [tensor("b", DataType.INT8, (2,))], "second"),
    ]
    loader = ml.MLModelLoader(ml.create_context(connection=road))
    model = loader.load(put(service, signatures))
    assert model.signatures() == ("second",)
    assert model.inputs() == (ml.MLTensorInfo("x", "float32", (1,)),)
    assert model.outputs() == (ml.MLTensorInfo("a", "float32", (1,)),)
    assert model.inputs("second") == (ml.MLTensorInfo("y", "int8", (2,)),)
    assert model.outputs(signature="second") == (ml.MLTensorInfo("b", "int8", (2,)),)
    assert model.compute(np.array([1, 2], np.int8), signature="second").tolist() == [1, 2]
    assert model.compute(np.array([3], np.float32)).tolist() == [3]
    with pytest.raises(ml.DataError, match="no signature 'third'; it has 'second'"):
        model.compute(X, signature="third")
    with pytest.raises(ml.ConstraintError):
        model.compute(X, signature=1)  # type: ignore[arg-type]


def test_reset(service: FakeService, road: ml.Connection) -> None:
    model = loaded(service, road, tensor("x", DataType.FLOAT32, (2, 3)))
    model.reset()
    np.testing.assert_array_equal(model.compute(X), X)


def test_reply_in_small_pieces(load: Load) -> None:
    model = load(echoing(tensor("x", DataType.FLOAT32, (200, 200))), workers.dribble)
    x = np.random.default_rng(1).normal(size=(200, 200)).astype(np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(model.compute(x), x)


def test_many_tensors(load: Load) -> None:
    count = 1500
    model = load(echoing(*[tensor(f"t{n}", DataType.INT32, (40,)) for n in range(count)]))
    inputs = {f"t{n}": np.full(40, n, np.int32) for n in range(count)}
    answer = model.compute(inputs)
    assert len(answer) == count
    assert all((answer[f"out:t{n}"] == n).all() for n in range(count))
