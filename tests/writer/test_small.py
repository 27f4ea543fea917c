"""The tiny models load and compute what they say, on both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import small
from loader_service.writer.tensors import NUMPY_TYPES

from .running import Runtime, call, names

PACKED = (TensorType.INT4, TensorType.INT2, TensorType.UINT4)
EIGHT_BIT_FLOATS = (TensorType.FLOAT8_E4M3FN, TensorType.FLOAT8_E5M2)


def _values(tensor_type: TensorType) -> np.ndarray:
    """Four values that the type holds exactly."""
    return np.array([1, 0, 3, 100]).astype(NUMPY_TYPES[tensor_type])


def test_add_takes_and_gives_four_bytes(runtime: Runtime) -> None:
    (y,) = runtime.run(small.add(2.5), [4.0])
    assert y.tolist() == [6.5]
    assert (y.dtype, y.nbytes) == (np.float32, 4)


@pytest.mark.parametrize("tensor_type", NUMPY_TYPES, ids=lambda t: t.name)
def test_identity_and_copy_keep_every_type(runtime: Runtime, tensor_type: TensorType) -> None:
    values = _values(tensor_type)
    for model in (small.identity(tensor_type), small.copy(tensor_type)):
        (y,) = runtime.run(model, values)
        assert y.dtype == values.dtype
        assert y.tobytes() == values.tobytes()


def test_identity_and_copy_keep_strings(runtime: Runtime) -> None:
    strings = [b"a", "ü".encode(), b"", b"with\0nul"]
    for model in (small.identity(TensorType.STRING), small.copy(TensorType.STRING)):
        (y,) = runtime.run(model, strings)
        assert y.tolist() == strings


@pytest.mark.parametrize("tensor_type", PACKED + EIGHT_BIT_FLOATS, ids=lambda t: t.name)
def test_types_that_numpy_lacks_load_on_litert(litert: Runtime, tensor_type: TensorType) -> None:
    interpreter = litert.interpreter(small.copy(tensor_type))
    interpreter.invoke()
    assert interpreter.get_output_details()[0]["shape"].tolist() == [4]


def test_bfloat16_passes_on_litert_beside_ml_dtypes(litert: Runtime) -> None:
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    # LiteRT takes the first type that was registered with NumPy for bfloat16.
    if bfloat16.num != 256:
        pytest.skip("another package registered a type with NumPy first")
    interpreter = litert.interpreter(small.copy(TensorType.BFLOAT16))
    interpreter.tensor(0)()[...] = np.array([1, -2, 0.5, 256]).astype(bfloat16)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert y.astype(np.float32).tolist() == [1, -2, 0.5, 256]


@pytest.mark.parametrize(
    "tensor_type",
    [TensorType.FLOAT32, TensorType.INT16, TensorType.INT32, TensorType.INT64],
    ids=lambda t: t.name,
)
def test_double_adds_in_its_type(runtime: Runtime, tensor_type: TensorType) -> None:
    values = _values(tensor_type)
    (y,) = runtime.run(small.double(tensor_type), values)
    assert y.tolist() == (values + values).tolist()


def test_double_adds_float16_on_litert(litert: Runtime) -> None:
    (y,) = litert.run(small.double(TensorType.FLOAT16), [1, 0.5, 3, 100])
    assert y.dtype == np.float16
    assert y.tolist() == [2, 1, 6, 200]


@pytest.mark.parametrize("tensor_type", [TensorType.INT8, TensorType.UINT8], ids=lambda t: t.name)
def test_double_of_quantized_types_stores_the_same(
    runtime: Runtime, tensor_type: TensorType
) -> None:
    (y,) = runtime.run(small.double(tensor_type), [0, 1, 3, 127])
    assert y.tolist() == [0, 1, 3, 127]


def test_cast_changes_the_type(runtime: Runtime) -> None:
    (y,) = runtime.run(small.cast(TensorType.FLOAT32, TensorType.INT32), [1.75, -1.75, 0, 7])
    assert y.dtype == np.int32
    assert y.tolist() == [1, -1, 0, 7]


def test_scalars_have_no_dimensions(runtime: Runtime) -> None:
    (y,) = runtime.run(small.scalar(), 2.0)
    assert y.shape == ()
    assert y == 3.0


def test_zero_size_tensors_pass(runtime: Runtime) -> None:
    (y,) = runtime.run(small.zero_size(), np.zeros(0, np.float32))
    assert y.shape == (0,)


def test_the_batch_is_free(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(small.dynamic_batch(2))
    assert interpreter.get_input_details()[0]["shape_signature"].tolist() == [-1, 2]
    (y,) = call(interpreter, [[1, 2], [3, 4], [5, 6]])
    assert y.tolist() == [[2, 4], [6, 8], [10, 12]]


def test_height_and_width_are_free(runtime: Runtime) -> None:
    image = np.arange(2 * 5 * 3).reshape(1, 2, 5, 3)
    (y,) = runtime.run(small.dynamic_image(), image)
    assert y.tolist() == (image * 2).tolist()


def test_the_number_of_output_rows_follows_the_data(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(small.dynamic_output(4))
    for values in ([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]):
        (y,) = call(interpreter, values)
        assert y.tolist() == [[place] for place, value in enumerate(values) if value]


def test_two_signatures_run_two_subgraphs(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(small.two_signatures())
    assert interpreter.get_signature_list() == {
        "add": {"inputs": ["a", "b"], "outputs": ["result"]},
        "subtract": {"inputs": ["a", "b"], "outputs": ["result"]},
    }
    a, b = np.array([1, 2], np.float32), np.array([10, 30], np.float32)
    assert interpreter.get_signature_runner("add")(a=a, b=b)["result"].tolist() == [11, 32]
    assert interpreter.get_signature_runner("subtract")(a=a, b=b)["result"].tolist() == [-9, -28]


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        (small.sum_and_difference(), ["a", "b"], ["sum", "difference"]),
        (small.repeated_names(), ["x", "x"], ["y", "y"]),
        (small.empty_names(), ["", ""], ["", ""]),
    ],
    ids=["plain", "repeated", "empty"],
)
def test_names_are_as_written(
    runtime: Runtime, model: bytes, inputs: list[str], outputs: list[str]
) -> None:
    interpreter = runtime.interpreter(model)
    assert names(interpreter.get_input_details()) == inputs
    assert names(interpreter.get_output_details()) == outputs
    total, difference = call(interpreter, [1, 2], [10, 30])
    assert total.tolist() == [11, 32]
    assert difference.tolist() == [-9, -28]


def test_a_model_may_have_no_inputs_or_no_outputs(runtime: Runtime) -> None:
    (y,) = runtime.run(small.no_inputs())
    assert y.tolist() == [3, 4]
    assert runtime.run(small.no_outputs(), [1, 2]) == []


def test_a_small_input_becomes_a_large_output(runtime: Runtime) -> None:
    (y,) = runtime.run(small.broadcast(1_000_000), [7])
    assert y.shape == (1_000_000,)
    assert set(y.tolist()) == {7.0}


def test_fill_gives_as_many_elements_as_asked(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(small.fill())
    for elements in (3, 100_000, 0):
        (y,) = call(interpreter, [elements])
        assert y.tolist() == [1.0] * elements
