"""Rules for operators that move a window over an image: convolutions and pools.

Sources: CVE-2023-27579 (groups and filters of no channels divide by zero), CVE-2022-41894 (a bias
that is too short), and kernels that narrow strides and dilations to 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.look import Look, Rule, Shape

LARGEST_STEP = 2**15 - 1
"""Kernels keep strides and dilations in an int16."""

LARGEST_SCRATCH = 1 << 40
"""Bytes of an unrolled image (im2col): beyond it no limit could hold it."""

_VALID = 1
_STRIDES = ("stride_w", "stride_h")
_DILATIONS = ("dilation_w_factor", "dilation_h_factor")


def _steps(look: Look, *names: str) -> Iterator[str]:
    for name in names:
        value = look.option(name)
        if not 0 < value <= LARGEST_STEP:
            yield f"{name} is {value}, not 1 to {LARGEST_STEP}"


def _padding(look: Look) -> Iterator[str]:
    if not 0 <= look.option("padding") <= _VALID:
        yield f"there is no padding {look.option('padding')}"


def _filter(look: Look, position: int, rank: int) -> Iterator[str]:
    shape = look.shape(position)
    if shape is None:
        return
    if len(shape) != rank:
        yield f"its filter has {len(shape)} dimensions, not {rank}"
    elif min(shape) < 1:
        yield f"its filter has the shape {shape}"


def _image(look: Look, position: int, rank: int) -> Iterator[str]:
    found = look.rank(position)
    if found is not None and found != rank:
        yield f"its image has {found} dimensions, not {rank}"


def _bias(look: Look, position: int, channels: int) -> Iterator[str]:
    shape = look.shape(position)
    if shape is not None and prod(shape) != channels:
        yield f"its bias of shape {shape} is not for {channels} channels"


def _result(look: Look, channels: int) -> Iterator[str]:
    shape = look.output_shape()
    if shape and shape[-1] != channels:
        yield f"its output of shape {shape} is not of {channels} channels"


def _moved(look: Look, window: tuple[int, int]) -> Iterator[str]:
    """Height and width of the output follow from the image's: XNNPACK makes room by the file."""
    yield from _windows(look, look.dimensions(0), window, look.output_dimensions(), "its output")


def _windows(
    look: Look, image: Shape | None, window: tuple[int, int], result: Shape | None, what: str
) -> Iterator[str]:
    """As many windows as fit the image, by strides and padding, are in the result."""
    strides = (look.option("stride_h"), look.option("stride_w"))
    if image is None or result is None or not len(image) == len(result) == 4 or min(strides) < 1:
        return
    for number, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        if image[number] < 0:
            continue
        covered = size if look.option("padding") == _VALID else 1
        moved = max((image[number] - covered + stride) // stride, 0)
        if result[number] not in (-1, moved):
            yield f"dimension {number} becomes {moved}, and {what} has {result[number]}"


def _dilated(look: Look, weights: Shape) -> tuple[int, int]:
    """Height and width that a filter covers."""
    return (
        (weights[1] - 1) * look.option("dilation_h_factor") + 1,
        (weights[2] - 1) * look.option("dilation_w_factor") + 1,
    )


def _convolution(look: Look) -> Iterator[str]:
    yield from _steps(look, *_STRIDES, *_DILATIONS)
    yield from _padding(look)
    yield from _image(look, 0, 4)
    yield from _filter(look, 1, 4)
    weights, image, result = look.shape(1), look.dimensions(0), look.output_shape()
    if weights is None or len(weights) != 4 or min(weights) < 1:
        return
    yield from _bias(look, 2, weights[0])
    yield from _result(look, weights[0])
    yield from _moved(look, _dilated(look, weights))
    if image is not None and len(image) == 4 and image[3] >= 0:
        if image[3] < 1 or image[3] % weights[3]:
            yield f"{image[3]} channels do not divide into groups of {weights[3]}"
        elif weights[0] % (image[3] // weights[3]):
            yield f"{weights[0]} filters do not divide into {image[3] // weights[3]} groups"
    if result is not None and len(result) == 4:
        unrolled = prod(result[:3]) * prod(weights[1:]) * 4
        if unrolled > LARGEST_SCRATCH:
            yield f"the unrolled image would take {unrolled} bytes"


def _depthwise(look: Look) -> Iterator[str]:
    yield from _steps(look, *_STRIDES, *_DILATIONS)
    yield from _padding(look)
    yield from _image(look, 0, 4)
    yield from _filter(look, 1, 4)
    weights, image = look.shape(1), look.dimensions(0)
    if weights is None or len(weights) != 4 or min(weights) < 1:
        return
    yield from _bias(look, 2, weights[3])
    yield from _result(look, weights[3])
    yield from _moved(look, _dilated(look, weights))
    if image is None or len(image) != 4 or image[3] < 0:
        return
    if image[3] < 1 or weights[3] % image[3]:
        yield f"{weights[3]} filters do not divide into {image[3]} channels"


def _pool(look: Look) -> Iterator[str]:
    yield from _steps(look, *_STRIDES, "filter_width", "filter_height")
    yield from _padding(look)
    yield from _image(look, 0, 4)
    yield from _moved(look, (look.option("filter_height"), look.option("filter_width")))


def _normalization(look: Look) -> Iterator[str]:
    yield from _image(look, 0, 4)
    if not 0 <= look.option("radius") <= LARGEST_STEP:
        yield f"its radius is {look.option('radius')}, not 0 to {LARGEST_STEP}"


def _transposed(look: Look) -> Iterator[str]:
    yield from _steps(look, *_STRIDES)
    yield from _padding(look)
    yield from _filter(look, 1, 4)
    yield from _image(look, 2, 4)
    sizes = look.constant(0)
    if sizes is not None and (len(sizes) != 4 or min(sizes) < 1):
        yield f"its output shape is {sizes}"
    image = look.dimensions(2)
    if sizes is not None and image and len(sizes) == 4 and image[0] not in (-1, sizes[0]):
        yield f"makes {sizes[0]} images of {image[0]}"
    weights = look.shape(1)
    if weights is not None and len(weights) == 4:
        yield from _bias(look, 3, weights[0])
        yield from _result(look, weights[0])
        # It is a convolution backwards: forwards, its output makes its image.
        yield from _windows(look, sizes, weights[1:3], image, "its image")


def _convolution_3d(look: Look) -> Iterator[str]:
    yield from _steps(look, "stride_d", *_STRIDES, "dilation_d_factor", *_DILATIONS)
    yield from _padding(look)
    transposed = look.operator.code == Op.CONV_3D_TRANSPOSE
    yield from _image(look, 2 if transposed else 0, 5)
    yield from _filter(look, 1, 5)
    weights = look.shape(1)
    if weights is not None and len(weights) == 5:
        # Filters: depth, height, width, then input and output channels, or the other way round.
        yield from _bias(look, 3 if transposed else 2, weights[3 if transposed else 4])


WINDOWS: Mapping[Op, Rule] = {
    Op.CONV_2D: _convolution,
    Op.DEPTHWISE_CONV_2D: _depthwise,
    Op.AVERAGE_POOL_2D: _pool,
    Op.MAX_POOL_2D: _pool,
    Op.L2_POOL_2D: _pool,
    Op.LOCAL_RESPONSE_NORMALIZATION: _normalization,
    Op.TRANSPOSE_CONV: _transposed,
    Op.CONV_3D: _convolution_3d,
    Op.CONV_3D_TRANSPOSE: _convolution_3d,
}
"""By operator."""
