"""Image files as input tensors: resized to the input, RGB or grey, scaled to its data type."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from model_loader import MLTensorInfo

from .tensors import DTYPES, Array, shown_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
SCALES = ("minus-one-one", "zero-one", "raw")
"""How the 0 to 255 of an image become floating-point numbers; the first is the default."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for an image of so many channels."""
INT8_ZERO = 128
MISSING = "images need Pillow, which is not installed: pip install 'model-loader[images]'"


def read_image(path: Path, tensor: MLTensorInfo, scale: str = SCALES[0]) -> Array:
    """Read an image as a value of that input.

    The input must be [height, width], [height, width, channels], or either with a first dimension
    of 1; sizes known only at run time become the image's own. Floating-point types are scaled as
    `scale` says, uint8 and wider integers are raw, int8 is raw minus 128. Raises ClickException
    where Pillow is missing or the file is no image, UsageError where the input takes none.
    """
    height, width, channels, shape = _layout(tensor)
    image = _opened(path).convert(MODES[channels])
    size = (width or image.width, height or image.height)
    if image.size != size:
        image = image.resize(size, resample=_bilinear())
    pixels = np.asarray(image, np.uint8)
    sizes = (size[1], size[0], channels)
    named = {"height": sizes[0], "width": sizes[1], "channels": sizes[2]}
    return _scaled(pixels, tensor, scale).reshape([named.get(part, 1) for part in shape])


def _layout(tensor: MLTensorInfo) -> tuple[int | None, int | None, int, tuple[str, ...]]:
    """Height, width, channels, and what each dimension of the input holds."""
    sizes = tensor.dimensions or ()
    shape: tuple[str, ...] = ()
    if len(sizes) in (3, 4) and sizes[-1] in MODES:
        shape = ("height", "width", "channels")
    elif len(sizes) in (2, 3):
        shape = ("height", "width")
    shape = ("batch",) * (len(sizes) - len(shape)) + shape
    if not sizes or "height" not in shape or ("batch" in shape and sizes[0] not in (1, None)):
        raise click.UsageError(
            f"an image does not fit this input: {shown_tensor(tensor)}\n"
            "Images go into [height, width] or [height, width, 1, 3 or 4 channels], with or "
            "without a first dimension of 1. Give an array instead (.npy)."
        )
    place = shape.index("height")
    channels = sizes[place + 2] if "channels" in shape else 1
    return sizes[place], sizes[place + 1], channels or 1, shape


def _opened(path: Path) -> Image:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise click.ClickException(MISSING) from None
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            upright.load()
            return upright
    except UnidentifiedImageError:
        raise click.UsageError(f"{path} is no image that Pillow can read") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise click.UsageError(f"{path} cannot be read as an image: {error}") from None


def _bilinear() -> int:
    from PIL.Image import Resampling

    return Resampling.BILINEAR


def _scaled(pixels: Array, tensor: MLTensorInfo, scale: str) -> Array:
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or dtype.kind == "b":
        raise click.UsageError(f"an image does not fit this input: {shown_tensor(tensor)}")
    if dtype == np.int8:
        return (pixels.astype(np.int16) - INT8_ZERO).astype(np.int8)
    if dtype.kind in "iu" or scale == "raw":
        return pixels.astype(dtype)
    if scale == "zero-one":
        return (pixels / np.float32(255)).astype(dtype)
    return (pixels / np.float32(127.5) - np.float32(1)).astype(dtype)
