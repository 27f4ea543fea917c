"""Outputs are ranked, told and written without trusting a name."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest

from model_loader import MLTensorInfo
from model_loader_cli.labels import fits, packed_labels, read_labels
from model_loader_cli.results import (
    LISTED_VALUES,
    file_name,
    output_scales,
    ranked,
    results_of,
    write_arrays,
)
from model_loader_cli.tensors import Array


def tensors(*names: str) -> list[MLTensorInfo]:
    return [MLTensorInfo(name, "float32", None) for name in names]


def test_the_largest_values_come_first_and_equal_ones_in_order() -> None:
    top = ranked(np.array([[1, 9, 3, 9]], np.uint8), 3)
    assert [(entry.index, entry.value) for entry in top] == [(1, 9), (3, 9), (2, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, np.float64, np.bool_, np.int64])
def test_ranking_works_for_every_kind_of_number(dtype: type) -> None:
    top = ranked(np.array([0, 1, 0], dtype), 1)
    assert [(entry.index, entry.value) for entry in top] == [(1, 1)]


def test_labels_go_with_an_output_that_has_one_value_for_each() -> None:
    values = np.array([[0.1, 0.7, 0.2]])
    assert [entry.label for entry in ranked(values, 2, ("x", "y", "z"))] == ["y", "z"]
    assert [entry.label for entry in ranked(values, 2, ("x", "y"))] == [None, None]
    assert fits(("x", "y", "z"), (1, 3, 1))
    assert not fits(("x", "y", "z"), (3, 3))
    assert not fits((), ())


def test_a_quantized_value_is_told_as_what_it_stands_for() -> None:
    (entry,) = ranked(np.array([[4, 202]], np.uint8), 1, (), (1 / 256, 2))
    assert (entry.value, entry.real) == (202, 200 / 256)


def test_only_vectors_are_ranked() -> None:
    outputs = {
        "vector": np.zeros((1, 4), np.float32),
        "matrix": np.zeros((2, 2), np.float32),
        "text": np.array([b"x"], object),
        "nothing": np.zeros((0,), np.float32),
    }
    results = results_of(outputs, tensors(*outputs), count=2)
    assert [len(result.top) for result in results] == [2, 0, 0, 0]


def test_scales_come_from_the_inspected_file() -> None:
    quantized = {"scale": [0.5], "zero_point": [3], "dimension": 0, "count": 1}
    channels = {"scale": [0.5, 0.25], "zero_point": [0, 0], "dimension": 1, "count": 2}
    summary = {
        "subgraphs": [{"outputs": [{"quantization": quantized}, {"quantization": channels}]}],
        "signatures": [
            {
                "key": "serve",
                "outputs": [
                    {"name": "b", "tensor": {"quantization": quantized}},
                    {"name": "a", "tensor": {"quantization": None}},
                ],
            }
        ],
    }
    assert output_scales(summary, None, tensors("x", "y")) == [(0.5, 3), None]
    assert output_scales(summary, "serve", tensors("a", "b")) == [None, (0.5, 3)]
    assert output_scales(summary, None, tensors("x")) == [None]


def test_a_document_holds_all_values_up_to_a_bound() -> None:
    outputs: dict[str, Array] = {
        "small": np.array([[1.5, 2]], np.float32),
        "large": np.zeros(LISTED_VALUES + 1, np.float32),
        "text": np.array([[b"caf\xc3\xa9", b"\xff"]], object),
    }
    small, large, text = (
        result.to_json() for result in results_of(outputs, tensors(*outputs), count=0)
    )
    assert (small["values"], small["shape"]) == ([[1.5, 2.0]], [1, 2])
    assert large["values"] is None
    assert text["values"] == [["café", "\\xff"]]


def test_outputs_are_written_where_they_belong(tmp_path: Path) -> None:
    outputs: dict[str, Array] = {
        "../../escape": np.array([1.0], np.float32),
        "A/b:0": np.array([2.0], np.float32),
        "a_b_0": np.array([3.0], np.float32),
        "..": np.array([4.0], np.float32),
        "": np.array([5.0], np.float32),
        "text": np.array([b"one", b"three"], object),
    }
    folder = tmp_path / "deep" / "results"
    paths = write_arrays(results_of(outputs, tensors(*outputs), count=0), folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    assert {path.parent for path in paths} == {folder}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    loaded = [np.load(path, allow_pickle=False).tolist() for path in paths]
    assert loaded == [[1.0], [2.0], [3.0], [4.0], [5.0], [b"one", b"three"]]


def test_file_names_are_plain_and_distinct() -> None:
    taken: set[str] = set()
    names = [file_name(name, taken) for name in ("a/b", "a:b", "A b", "\x1b[2J", "-rf", "x" * 500)]
    assert names == ["a_b", "a_b-1", "A_b-2", "_2J", "rf", "x" * 100]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(click.ClickException, match="cannot be written"):
        write_arrays([], blocked / "folder")


def test_label_files_are_read_a_line_a_label(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n dog \n".encode())
    assert read_labels(path) == ("cat", "dog")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(click.UsageError, match="cannot be read as labels"):
        read_labels(path)


def test_packed_labels_are_found_by_their_kind() -> None:
    files = [
        {"kind": "VOCABULARY", "lines": ["word"]},
        {"kind": "TENSOR_AXIS_LABELS", "lines": []},
        {"kind": "TENSOR_VALUE_LABELS", "lines": ["a", "b"]},
    ]
    assert packed_labels({"associated_files": files}) == ("a", "b")
    assert packed_labels({"associated_files": files[:2]}) == ()
