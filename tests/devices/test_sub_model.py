"""Partitions as models of their own, run by the library that runs the whole."""

from __future__ import annotations

import numpy as np
import pytest

from loader_service.devices.device import CompilationFailed
from loader_service.devices.partition import partition_of
from loader_service.devices.reading import read_view
from loader_service.devices.sub_model import ALIGNMENT, head_of, tensor_name
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import mobilenet, small
from tests.shared_models import require_shared, select

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
STOPS = frozenset({"IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE"})
"""Operators that need what a partition's model does not have: other subgraphs."""


def run(model: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model with inputs by name; returns all outputs by name."""
    interpreter = litert.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], inputs[detail["name"]])
    interpreter.invoke()
    return {
        detail["name"]: interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_output_details()
    }


def pieces_of(model: bytes, *numbers: range) -> list[bytes]:
    """The partitions of these nodes as models."""
    view = read_view(model)
    return [head_of(view, partition_of(view, nodes)) + model for nodes in numbers]


def test_the_whole_is_what_it_was() -> None:
    model = small.sum_and_difference()
    (piece,) = pieces_of(model, range(2))
    values = {
        detail["name"]: np.full(detail["shape"], number + 3.5, np.float32)
        for number, detail in enumerate(litert.Interpreter(model_content=model).get_input_details())
    }
    view = read_view(model)
    named = {
        tensor_name(index): value for index, value in zip(view.inputs, values.values(), strict=True)
    }
    assert [array.tolist() for array in run(piece, named).values()] == [
        array.tolist() for array in run(model, values).values()
    ]


@pytest.mark.parametrize("quantized", [False, True])
def test_two_halves_one_after_the_other_answer_as_the_whole(quantized: bool) -> None:
    model = mobilenet.mobilenet_v2(quantized=quantized)
    view = read_view(model)
    half = len(view.nodes) // 2
    first, second = pieces_of(model, range(half), range(half, len(view.nodes)))
    shape = view.tensors[view.inputs[0]].shape
    values = np.random.default_rng(7).integers(-100, 100, shape)
    image = values.astype(np.int8 if quantized else np.float32)
    (name,) = [
        detail["name"] for detail in litert.Interpreter(model_content=model).get_input_details()
    ]
    between = run(first, {tensor_name(view.inputs[0]): image})
    (answer,) = run(second, between).values()
    (expected,) = run(model, {name: image}).values()
    assert answer.tobytes() == expected.tobytes()


def test_the_file_itself_is_not_changed_and_stays_aligned() -> None:
    model = mobilenet.mobilenet_v1()
    view = read_view(model)
    head = head_of(view, partition_of(view, [0, 1]))
    assert len(head) % ALIGNMENT == 0
    assert len(head) < len(model) // 100
    # Read as a model again, the constants are the very bytes of the file.
    piece = read_view(head + model)
    for tensor in view.tensors:
        if tensor.data is not None and tensor.data[1]:
            place, length = tensor.data
            assert piece.tensors[tensor.index].data == (place + len(head), length)


def test_tensors_of_one_name_are_told_apart() -> None:
    model = small.repeated_names()
    (piece,) = pieces_of(model, range(2))
    interpreter = litert.Interpreter(model_content=piece)
    names = [detail["name"] for detail in interpreter.get_tensor_details()]
    assert len(set(names)) == len(names)


def test_constants_behind_the_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.add()
    view = read_view(model)
    monkeypatch.setattr(
        "loader_service.devices.sub_model._Original.field", lambda self, at, table, name: at
    )
    with pytest.raises(CompilationFailed, match="behind"):
        head_of(view, partition_of(view, [0]))


def test_more_than_a_flatbuffer_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.add()
    monkeypatch.setattr("loader_service.devices.sub_model._LARGEST", len(model))
    view = read_view(model)
    with pytest.raises(CompilationFailed, match="longer"):
        head_of(view, partition_of(view, [0]))


@pytest.mark.slow
def test_every_real_model_passes_the_verifier_as_a_partition() -> None:
    require_shared()
    passed = 0
    for shared in select(runs=True):
        data = shared.path.read_bytes()
        view = read_view(data)
        if any(node.operator in STOPS or node.is_custom for node in view.nodes):
            continue
        (piece,) = pieces_of(data, range(len(view.nodes)))
        verify(piece)
        passed += 1
    assert passed > 30
