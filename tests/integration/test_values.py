"""Data types, shapes, names, forms of a call: over both roads, on every runtime."""

from __future__ import annotations

import numpy as np
import pytest

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small, stateful

from .arrays import Array

TYPES = {
    "float32": TensorType.FLOAT32,
    "float64": TensorType.FLOAT64,
    "float16": TensorType.FLOAT16,
    "int64": TensorType.INT64,
    "int32": TensorType.INT32,
    "int16": TensorType.INT16,
    "int8": TensorType.INT8,
    "uint64": TensorType.UINT64,
    "uint32": TensorType.UINT32,
    "uint16": TensorType.UINT16,
    "uint8": TensorType.UINT8,
    "bool": TensorType.BOOL,
}
RAW = {
    TensorType.COMPLEX64: 32,
    TensorType.COMPLEX128: 64,
    TensorType.BFLOAT16: 8,
    TensorType.INT4: 2,
}
"""Types that the API does not name, with the bytes of four elements."""


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("make", [small.identity, small.copy])
def test_every_data_type_goes_in_and_comes_out(
    road_loader: ml.MLModelLoader, name: str, make: object
) -> None:
    assert callable(make)
    with road_loader.load(make(TYPES[name])) as model:
        (info,) = model.inputs()
        assert info.data_type == name
        values = np.array([0, 1, 2, 3]).astype(name)
        answer = model.compute(values)
        assert answer.dtype == np.dtype(name)
        assert answer.tolist() == values.tolist()
        assert answer.flags.writeable


@pytest.mark.parametrize("tensor_type", RAW)
def test_types_without_a_name_are_raw_bytes(
    road_loader: ml.MLModelLoader, runtime: str, tensor_type: TensorType
) -> None:
    if runtime == "tflite-runtime" and tensor_type is TensorType.BFLOAT16:
        with pytest.raises((ml.NotSupportedError, ml.OperationError, ml.DataError)):
            road_loader.load(small.identity(tensor_type))
        return
    with road_loader.load(small.identity(tensor_type)) as model:
        (info,) = model.inputs()
        assert info.data_type == "unknown"
        raw = bytes(range(1, RAW[tensor_type] + 1))
        answer = model.compute(raw)
        assert answer.dtype == np.uint8
        assert bytes(answer) == raw
        with pytest.raises(ml.DataError):
            model.compute(raw + b"x")


def test_strings(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.identity(TensorType.STRING)) as model:
        (info,) = model.inputs()
        assert info.data_type == "string"
        words = np.array([b"", "grün".encode(), b"\0zero", b"x" * 1000], object)
        assert model.compute(words).tolist() == words.tolist()
        assert model.compute(["a", "b", "c", "d"]).tolist() == [b"a", b"b", b"c", b"d"]


def test_scalars_and_tensors_without_elements(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.scalar()) as model:
        answer = model.compute(np.array(41, np.float32))
        assert answer.shape == ()
        assert answer == 42
    with road_loader.load(small.zero_size()) as model:
        assert model.compute(np.empty(0, np.float32)).shape == (0,)


def test_inputs_of_any_size_are_taken_and_others_refused(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.dynamic_batch()) as model:
        (info,) = model.inputs()
        assert info.dimensions == (None, 4)
        for batch in (1, 7, 3, 7):
            values = np.arange(batch * 4, dtype=np.float32).reshape(batch, 4)
            assert np.array_equal(model.compute(values), values * 2)
        with pytest.raises(ml.DataError, match=r"5"):
            model.compute(np.ones((2, 5), np.float32))
        assert model.compute(np.ones((1, 4), np.float32)).shape == (1, 4)
    with road_loader.load(small.dynamic_image()) as model:
        assert model.compute(np.ones((1, 5, 2, 3), np.float32)).shape == (1, 5, 2, 3)


def test_outputs_whose_size_the_data_decides(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.dynamic_output()) as model:
        for places in ([1, 5], [], [0, 1, 2, 3, 4, 5, 6, 7], [3]):
            values = np.zeros(8, bool)
            values[places] = True
            assert model.compute(values).reshape(-1).tolist() == places


def test_signatures(road_loader: ml.MLModelLoader) -> None:
    a, b = np.array([5, 6], np.float32), np.array([1, 2], np.float32)
    with road_loader.load(small.two_signatures()) as model:
        assert set(model.signatures()) == {"add", "subtract"}
        added = model.compute({"a": a, "b": b}, signature="add")
        assert added["result"].tolist() == [6, 8]
        taken = model.compute({"a": a, "b": b}, signature="subtract")
        assert taken["result"].tolist() == [4, 4]
        with pytest.raises(ml.DataError, match="subtract"):
            model.compute({"a": a, "b": b}, signature="divide")


@pytest.mark.parametrize(
    ("model_bytes", "inputs", "outputs"),
    [
        (small.repeated_names(), ("x", "x:1"), ("y", "y:1")),
        (small.empty_names(), ("input", "input:1"), ("output", "output:1")),
    ],
)
def test_repeated_and_empty_names(
    road_loader: ml.MLModelLoader,
    model_bytes: bytes,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> None:
    with road_loader.load(model_bytes) as model:
        assert tuple(info.name for info in model.inputs()) == inputs
        assert tuple(info.name for info in model.outputs()) == outputs
        values = [np.array([5, 6], np.float32), np.array([1, 2], np.float32)]
        answer = model.compute(dict(zip(inputs, values, strict=True)))
        assert answer[outputs[0]].tolist() == [6, 8]
        assert answer[outputs[1]].tolist() == [4, 4]


def test_no_inputs_and_no_outputs(road_loader: ml.MLModelLoader) -> None:
    with road_loader.load(small.no_inputs()) as model:
        assert model.compute({})["y"].tolist() == [3, 4]
    with road_loader.load(small.no_outputs()) as model:
        assert model.compute({"x": np.zeros(2, np.float32)}) == {}


def test_the_three_forms_of_a_call(road_loader: ml.MLModelLoader) -> None:
    x = np.array([1, 2, 3, 4], np.float32)
    with road_loader.load(small.double(TensorType.FLOAT32)) as model:
        assert model.compute(x).tolist() == [2, 4, 6, 8]
        assert model.compute(ml.MLTensor(x, (4,))).tolist() == [2, 4, 6, 8]
        assert model.compute({"x": x})["y"].tolist() == [2, 4, 6, 8]
        place: Array = np.zeros(4, np.float32)
        assert model.compute(x, outputs=place) is None
        assert place.tolist() == [2, 4, 6, 8]
        assert model.compute({"x": x}, outputs={"y": place}) is None


@pytest.mark.parametrize(
    "bad",
    [
        np.ones(4, np.float64),
        np.ones(4, ">f4"),
        np.ones((4, 1), np.float32),
        np.ones(3, np.float32),
        [1.0, 2.0, 3.0, 4.0],
        {"x": np.ones(4, np.float32), "extra": np.ones(4, np.float32)},
        {"X": np.ones(4, np.float32)},
        {},
        None,
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_cast(
    road_loader: ml.MLModelLoader, bad: object
) -> None:
    with road_loader.load(small.double(TensorType.FLOAT32)) as model:
        with pytest.raises(ml.DataError):
            model.compute(bad)
        assert model.compute(np.ones(4, np.float32)).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("make", [stateful.counter, stateful.running_sum])
def test_state_is_kept_is_not_shared_and_can_be_reset(
    road_loader: ml.MLModelLoader, make: object
) -> None:
    assert callable(make)
    with road_loader.load(make()) as first, road_loader.load(make()) as second:

        def step(model: ml.MLModel) -> bytes:
            inputs = {
                info.name: np.ones([size or 1 for size in info.dimensions or ()], info.data_type)
                for info in model.inputs()
            }
            return b"".join(np.asarray(value).tobytes() for value in model.compute(inputs).values())

        one, two, three = step(first), step(first), step(first)
        assert len({one, two, three}) == 3
        assert step(second) == one
        first.reset()
        assert [step(first), step(first)] == [one, two]
        assert step(second) == two


def test_two_outputs_need_memory_of_their_own(road_loader: ml.MLModelLoader) -> None:
    inputs = {"a": np.array([5, 6], np.float32), "b": np.array([1, 2], np.float32)}
    with road_loader.load(small.sum_and_difference()) as model:
        place: Array = np.zeros(3, np.float32)
        with pytest.raises(ml.DataError, match="own"):
            model.compute(inputs, outputs=[place[:2], place[1:]])
        apart: Array = np.zeros(4, np.float32)
        assert model.compute(inputs, outputs=[apart[:2], apart[2:]]) is None
        assert apart.tolist() == [6, 8, 4, 4]
