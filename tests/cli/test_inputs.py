"""Files find the inputs that they are meant for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from model_loader import MLTensor, MLTensorInfo
from model_loader_cli.images import SCALES
from model_loader_cli.inputs import gather, listed, parse
from model_loader_cli.random_inputs import random_inputs

A = MLTensorInfo("a", "float32", (2,))
B = MLTensorInfo("b", "float32", (2,))
ODD = MLTensorInfo("serving=default:0", "float32", (2,))


def npy(path: Path, *values: float) -> Path:
    np.save(path, np.array(values, np.float32))
    return path


def gathered(given: list[object], *tensors: MLTensorInfo, seed: int | None = None) -> Any:
    values = gather([str(text) for text in given], tensors, scale=SCALES[0], seed=seed)
    return {name: getattr(value, "tolist", lambda v=value: v)() for name, value in values.items()}


def test_named_files_go_to_their_inputs(tmp_path: Path) -> None:
    one, two = npy(tmp_path / "one.npy", 1, 1), npy(tmp_path / "two.npy", 2, 2)
    assert gathered([f"b={one}", f"a={two}"], A, B) == {"b": [1, 1], "a": [2, 2]}


def test_files_without_a_name_fill_what_is_left_in_order(tmp_path: Path) -> None:
    one, two = npy(tmp_path / "one.npy", 1, 1), npy(tmp_path / "two.npy", 2, 2)
    assert gathered([one, two], A, B) == {"a": [1, 1], "b": [2, 2]}
    assert gathered([one, f"a={two}"], A, B) == {"a": [2, 2], "b": [1, 1]}


def test_an_archive_names_its_inputs_itself(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    np.savez(path, a=np.zeros(2, np.float32), b=np.ones(2, np.float32))
    assert gathered([path], A, B) == {"a": [0, 0], "b": [1, 1]}
    assert gathered([f"b={path}", f"a={npy(tmp_path / 'x.npy', 5, 5)}"], A, B)["b"] == [1, 1]


def test_names_and_files_may_hold_an_equals_sign(tmp_path: Path) -> None:
    path = npy(tmp_path / "x=1.npy", 1, 1)
    assert gathered([f"serving=default:0={path}"], ODD) == {ODD.name: [1, 1]}
    assert parse(str(path), [A]).path == path


def test_missing_inputs_are_listed_with_type_and_shape() -> None:
    tensors = (A, MLTensorInfo("image", "uint8", (1, None, None, 3)))
    with pytest.raises(click.UsageError) as raised:
        gathered([], *tensors)
    assert "  a  float32  [2]" in raised.value.message
    assert "  image  uint8  [1, ?, ?, 3]" in raised.value.message
    assert "--random" in raised.value.message


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", 1)
    with pytest.raises(click.UsageError, match=r"(?s)no input 'c'.*  a  float32"):
        gathered([f"c={path}"], A)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(click.UsageError, match=r"there is no file 'nowhere\.npy'"):
        gathered(["nowhere.npy"], A)
    with pytest.raises(click.UsageError, match=r"there is no file 'nowhere\.npy'"):
        gathered(["a=nowhere.npy"], A)


def test_an_input_is_given_once(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", 1, 1)
    with pytest.raises(click.UsageError, match="given twice"):
        gathered([f"a={path}", f"a={path}"], A)
    with pytest.raises(click.UsageError, match="every input has a value already"):
        gathered([path, path], A)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,2")
    with pytest.raises(click.UsageError, match=r"one of these kinds: .*\.npy"):
        gathered([path], A)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Opens:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    np.save(tmp_path / "x.npy", np.array([Opens()], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([Opens()], object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(click.UsageError, match="cannot be read"):
            gathered([tmp_path / name], A)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04broken", b"text"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_a_usage_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(click.UsageError):
        gathered([path], A)


def test_a_seed_makes_up_what_is_missing(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", 7, 7)
    first = gathered([path], A, B, seed=3)
    assert first["a"] == [7, 7]
    assert first == gathered([path], A, B, seed=3)
    assert first["b"] != gathered([path], A, B, seed=4)["b"]


def test_made_up_values_have_the_type_and_shape_of_the_input() -> None:
    tensors = [
        MLTensorInfo("f", "float32", (3, None)),
        MLTensorInfo("h", "float16", ()),
        MLTensorInfo("u", "uint8", (1000,)),
        MLTensorInfo("i", "int64", (100,)),
        MLTensorInfo("b", "bool", (50,)),
        MLTensorInfo("s", "string", (2, 3)),
        MLTensorInfo("raw", "unknown", (4,)),
    ]
    values = random_inputs(tensors, 1)
    assert values.keys() == {"f", "h", "u", "i", "b", "s"}
    assert (values["f"].dtype, values["f"].shape) == (np.float32, (3, 1))
    assert (values["h"].dtype, values["h"].shape) == (np.float16, ())
    assert (values["u"].min(), values["u"].max()) == (0, 255)
    assert set(values["i"].tolist()) == set(range(8))
    assert set(values["b"].tolist()) == {False, True}
    assert isinstance(values["s"], MLTensor)
    assert values["s"].dimensions == (2, 3)
    assert len(values["s"].data) == 6


def test_a_type_without_made_up_values_stays_missing() -> None:
    with pytest.raises(click.UsageError, match="raw  unknown"):
        gathered([], MLTensorInfo("raw", "unknown", (4,)), seed=1)


def test_names_of_inputs_are_escaped() -> None:
    assert "\x1b" not in listed([MLTensorInfo("\x1b[31mred", "float32", ())])
