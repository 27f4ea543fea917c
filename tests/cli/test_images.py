"""Images become what an input takes: size, channels, data type and scale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from model_loader import MLTensorInfo
from model_loader_cli import images

Image = pytest.importorskip("PIL.Image", reason="Pillow (extra [images]) is not installed here")


def save(path: Path, pixels: Any) -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image 3 wide and 2 high: red, green, blue; black, grey, white."""
    rows = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [128] * 3, [255] * 3]]
    return save(tmp_path / "picture.png", rows)


def tensor(data_type: str, *dimensions: int | None) -> MLTensorInfo:
    return MLTensorInfo("image", data_type, dimensions)


def test_uint8_takes_the_pixels_as_they_are(picture: Path) -> None:
    value = images.read_image(picture, tensor("uint8", 1, 2, 3, 3))
    assert value.dtype == np.uint8
    assert value.shape == (1, 2, 3, 3)
    assert value[0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert value[0, 1, 1].tolist() == [128, 128, 128]


def test_int8_takes_them_minus_128(picture: Path) -> None:
    value = images.read_image(picture, tensor("int8", 1, 2, 3, 3))
    assert value.dtype == np.int8
    assert value[0, 0, 0].tolist() == [127, -128, -128]
    assert value[0, 1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("scale", "black", "white"),
    [("minus-one-one", -1.0, 1.0), ("zero-one", 0.0, 1.0), ("raw", 0.0, 255.0)],
)
@pytest.mark.parametrize("data_type", ["float32", "float16"])
def test_floating_point_is_scaled(
    picture: Path, data_type: str, scale: str, black: float, white: float
) -> None:
    value = images.read_image(picture, tensor(data_type, 1, 2, 3, 3), scale)
    assert value.dtype == np.dtype(data_type)
    assert value[0, 1, 0].tolist() == [black] * 3
    assert value[0, 1, 2].tolist() == [white] * 3


def test_the_first_scale_is_the_default(picture: Path) -> None:
    value = images.read_image(picture, tensor("float32", 1, 2, 3, 3))
    assert (value.min(), value.max()) == (-1, 1)


@pytest.mark.parametrize(
    ("dimensions", "shape"),
    [
        ((2, 3), (2, 3)),
        ((1, 2, 3), (1, 2, 3)),
        ((2, 3, 1), (2, 3, 1)),
        ((1, 2, 3, 1), (1, 2, 3, 1)),
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((2, 3, 3), (2, 3, 3)),
        ((None, 4, 6, 3), (1, 4, 6, 3)),
        ((None, None, None, 3), (1, 2, 3, 3)),
        ((1, 10, 20, 3), (1, 10, 20, 3)),
    ],
)
def test_the_shape_is_the_inputs(
    picture: Path, dimensions: tuple[int | None, ...], shape: tuple[int, ...]
) -> None:
    value = images.read_image(picture, tensor("uint8", *dimensions))
    assert value.shape == shape


def test_one_channel_is_grey(picture: Path) -> None:
    value = images.read_image(picture, tensor("uint8", 1, 2, 3, 1))
    assert value[0, 1, :, 0].tolist() == [0, 128, 255]
    assert len(set(value[0, 0, :, 0].tolist())) == 3


def test_a_picture_taken_sideways_is_turned_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 100, 200]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # the orientation of a camera held on its side
    path = tmp_path / "sideways.jpg"
    image.save(path, exif=exif)
    value = images.read_image(path, tensor("uint8", None, None))
    assert value.shape == (3, 1)


@pytest.mark.parametrize(
    "declared",
    [
        tensor("float32", 1, 10),
        tensor("float32", 5),
        tensor("float32"),
        tensor("float32", 2, 8, 8, 3),
        tensor("float32", 1, 3, 8, 8),
        tensor("bool", 1, 8, 8, 1),
        tensor("string", 1, 8, 8, 1),
        MLTensorInfo("image", "float32", None),
    ],
)
def test_other_inputs_take_no_image(picture: Path, declared: MLTensorInfo) -> None:
    if declared.dimensions == (1, 10):
        value = images.read_image(picture, declared)  # [height, width], however flat
        assert value.shape == (1, 10)
        return
    with pytest.raises(click.UsageError, match="does not fit this input: image"):
        images.read_image(picture, declared)


def test_a_text_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("not an image")
    with pytest.raises(click.UsageError, match="no image that Pillow can read"):
        images.read_image(path, tensor("uint8", 1, 2, 3, 3))


def test_half_an_image_is_no_image(picture: Path) -> None:
    data = picture.read_bytes()
    picture.write_bytes(data[: len(data) // 2])
    with pytest.raises(click.UsageError, match=r"picture\.png"):
        images.read_image(picture, tensor("uint8", 1, 2, 3, 3))


def test_without_pillow_it_says_what_to_install(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(click.ClickException, match=r"pip install 'model-loader\[images\]'"):
        images.read_image(picture, tensor("uint8", 1, 2, 3, 3))
