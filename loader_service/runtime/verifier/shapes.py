"""Rules for operators that name axes, shapes and blocks.

Sources: CVE-2020-15207 (negative axes), CVE-2021-29597 (blocks of 0), CVE-2021-29601 and
CVE-2021-29606 (axes of CONCATENATION and SPLIT_V), tensorflow#124982 (a new shape longer than the
kernel's array).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.look import Look, Rule, axis_broken
from loader_service.runtime.verifier.tensors import LARGEST_COUNT, MAXIMUM_RANK


def _axes_of(position: int) -> Rule:
    """Axes in a constant input, of the tensor at input 0."""

    def rule(look: Look) -> Iterator[str]:
        for axis in look.constant(position) or ():
            yield from axis_broken(axis, look.rank(0))

    return rule


def _axis_option(look: Look) -> Iterator[str]:
    yield from axis_broken(look.option("axis"), look.rank(0))


def _expand_dims(look: Look) -> Iterator[str]:
    rank = look.rank(0)
    for axis in look.constant(1) or ():
        yield from axis_broken(axis, None if rank is None else rank + 1)


def _concatenation(look: Look) -> Iterator[str]:
    axis, rank = look.option("axis"), look.rank(0)
    yield from axis_broken(axis, rank)
    if rank is None or not -rank <= axis < rank:
        return
    joined, known = 0, True
    for position in range(len(look.operator.inputs)):
        shape = look.dimensions(position)
        if shape is None:
            known = False
            continue
        if len(shape) != rank:
            yield f"input {position} has {len(shape)} dimensions, and the first has {rank}"
            return
        known = known and shape[axis] >= 0
        joined += max(shape[axis], 0)
    if joined > LARGEST_COUNT:
        yield f"dimension {axis} becomes {joined}"
    result = look.output_dimensions()
    if known and result is not None and len(result) == rank and result[axis] not in (-1, joined):
        yield f"dimension {axis} becomes {joined}, and its output has {result[axis]}"


def _pack(look: Look) -> Iterator[str]:
    rank = look.rank(0)
    yield from axis_broken(look.option("axis"), None if rank is None else rank + 1)
    if look.option("values_count") != len(look.operator.inputs):
        yield f"packs {look.option('values_count')} of {len(look.operator.inputs)} inputs"


def _unpack(look: Look) -> Iterator[str]:
    yield from _axis_option(look)
    if look.option("num") != len(look.operator.outputs):
        yield f"unpacks {look.option('num')} into {len(look.operator.outputs)} outputs"


def _split(look: Look) -> Iterator[str]:
    # SPLIT has its axis first, SPLIT_V last.
    value, place = (1, 0) if look.operator.code == Op.SPLIT else (0, 2)
    for axis in look.constant(place) or ():
        yield from axis_broken(axis, look.rank(value))
    outputs = len(look.operator.outputs)
    if look.option("num_splits") != outputs:
        yield f"splits into {look.option('num_splits')}, with {outputs} outputs"
    sizes = look.constant(1) if look.operator.code == Op.SPLIT_V else None
    if sizes is not None and (len(sizes) != outputs or min(sizes, default=0) < -1):
        yield f"splits into the sizes {sizes}, with {outputs} outputs"


def _reshape(look: Look) -> Iterator[str]:
    given = [("new_shape", look.option_list("new_shape")), ("its shape", look.constant(1) or ())]
    for name, shape in given:
        if len(shape) > MAXIMUM_RANK:
            yield f"{name} has {len(shape)} dimensions, more than {MAXIMUM_RANK}"
        elif any(size < -1 for size in shape) or shape.count(-1) > 1:
            yield f"{name} is {shape}"
        elif prod(size for size in shape if size > 0) > LARGEST_COUNT:
            yield f"{name} {shape} has more than {LARGEST_COUNT} elements"


def _target_shape(position: int) -> Rule:
    """A shape in a constant input, that the output shall have."""

    def rule(look: Look) -> Iterator[str]:
        shape = look.constant(position)
        if shape is None:
            return
        if len(shape) > MAXIMUM_RANK:
            yield f"its shape has {len(shape)} dimensions, more than {MAXIMUM_RANK}"
        elif any(size < 0 for size in shape) or prod(shape) > LARGEST_COUNT:
            yield f"its shape is {shape}"

    return rule


def _squeeze(look: Look) -> Iterator[str]:
    axes = look.option_list("squeeze_dims")
    if len(axes) > MAXIMUM_RANK:
        yield f"squeezes {len(axes)} dimensions, more than {MAXIMUM_RANK}"
    for axis in axes:
        yield from axis_broken(axis, look.rank(0))


def _transpose(look: Look) -> Iterator[str]:
    order, rank = look.constant(1), look.rank(0)
    if order is None:
        return
    if sorted(axis % (rank or 1) for axis in order) != list(range(len(order))) or (
        rank is not None and len(order) != rank
    ):
        yield f"{order} is no order of {rank} dimensions"
    for axis in order:
        yield from axis_broken(axis, rank)


def _block_shape(look: Look) -> Iterator[str]:
    blocks, edges = look.constant(1), look.constant(2)
    if blocks is not None and (not blocks or min(blocks) < 1 or prod(blocks) > LARGEST_COUNT):
        yield f"its blocks are {blocks}"
    if edges is not None and (min(edges, default=0) < 0 or max(edges, default=0) > LARGEST_COUNT):
        yield f"its paddings or crops are {edges}"
    if blocks is not None and edges is not None and len(edges) != 2 * len(blocks):
        yield f"{len(edges)} paddings or crops for {len(blocks)} blocks"


def _block_size(look: Look) -> Iterator[str]:
    size = look.option("block_size")
    if not 0 < size < 1 << 15:
        yield f"its block size is {size}"


def _pad(look: Look) -> Iterator[str]:
    paddings, rank = look.constant(1), look.rank(0)
    if paddings is None:
        return
    if rank is not None and len(paddings) != 2 * rank:
        yield f"{len(paddings)} paddings for {rank} dimensions"
    if min(paddings, default=0) < 0:
        yield f"its paddings are {paddings}"
    shape = look.shape(0)
    if shape is not None and len(paddings) == 2 * len(shape):
        padded = [size + sum(paddings[2 * n : 2 * n + 2]) for n, size in enumerate(shape)]
        if prod(padded) > LARGEST_COUNT:
            yield f"the padded shape {tuple(padded)} has more than {LARGEST_COUNT} elements"


def _mirror_pad(look: Look) -> Iterator[str]:
    yield from _pad(look)
    paddings, shape = look.constant(1), look.dimensions(0)
    if paddings is None or shape is None or len(paddings) != 2 * len(shape):
        return
    # A reflection leaves out the edge itself, a symmetric one repeats it.
    edge = 0 if look.option("mode") else 1
    for number, size in enumerate(shape):
        if size < 0:
            continue
        widest = max(paddings[2 * number : 2 * number + 2])
        if widest > max(size - edge, 0):
            yield f"mirrors {widest} of {size} in dimension {number}"


def _resize(look: Look) -> Iterator[str]:
    size = look.constant(1)
    if size is not None and (len(size) != 2 or min(size) < 1 or prod(size) > LARGEST_COUNT):
        yield f"its new size is {size}"
    shape = look.dimensions(0)
    if shape is not None and 0 in shape:
        yield f"makes an image out of none, of shape {shape}"


def _unpacked_weights(look: Look) -> Iterator[str]:
    # XNNPACK takes packed weights for unpacked ones, with the shape that the file gives those.
    tensors = look.operator.graph.tensors
    packed, unpacked = look.input(0), tensors[look.operator.outputs[0]]
    if packed.data is not None and packed.shape != unpacked.shape:
        yield f"unpacks a constant of shape {packed.shape} to the shape {unpacked.shape}"


def _softmax(look: Look) -> Iterator[str]:
    shape = look.dimensions(0)
    if shape and shape[-1] == 0:
        yield "goes over no elements"


def _pairwise(look: Look) -> Iterator[str]:
    # These kernels compare ranks only, and read as many elements of the second as the first has.
    first, second = look.dimensions(0), look.dimensions(1)
    if first is None or second is None or len(first) != len(second):
        return
    fixed = look.input(1).data is not None
    for size, other in zip(first, second, strict=True):
        if size != other and (fixed or -1 not in (size, other)):
            yield f"goes through the shapes {first} and {second} at a time"
            return


_REDUCERS = (
    Op.MEAN, Op.SUM, Op.REDUCE_ALL, Op.REDUCE_ANY, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_PROD,
    Op.REVERSE_V2, Op.CUMSUM, Op.ARG_MAX, Op.ARG_MIN,
)  # fmt: skip

SHAPES: Mapping[Op, Rule] = {
    **dict.fromkeys(_REDUCERS, _axes_of(1)),
    Op.SOFTMAX: _softmax,
    Op.LOG_SOFTMAX: _softmax,
    Op.EXPAND_DIMS: _expand_dims,
    Op.CONCATENATION: _concatenation,
    Op.PACK: _pack,
    Op.UNPACK: _unpack,
    Op.SPLIT: _split,
    Op.SPLIT_V: _split,
    Op.RESHAPE: _reshape,
    Op.BROADCAST_TO: _target_shape(1),
    Op.FILL: _target_shape(0),
    Op.RANDOM_STANDARD_NORMAL: _target_shape(0),
    Op.RANDOM_UNIFORM: _target_shape(0),
    Op.SCATTER_ND: _target_shape(2),
    Op.SPARSE_TO_DENSE: _target_shape(1),
    Op.SQUEEZE: _squeeze,
    Op.TRANSPOSE: _transpose,
    Op.SPACE_TO_BATCH_ND: _block_shape,
    Op.BATCH_TO_SPACE_ND: _block_shape,
    Op.SPACE_TO_DEPTH: _block_size,
    Op.DEPTH_TO_SPACE: _block_size,
    Op.PAD: _pad,
    Op.PADV2: _pad,
    Op.MIRROR_PAD: _mirror_pad,
    Op.RESIZE_BILINEAR: _resize,
    Op.RESIZE_NEAREST_NEIGHBOR: _resize,
    Op.ATAN2: _pairwise,
    Op.STABLEHLO_SHIFT_LEFT: _pairwise,
    Op.DEQUANTIZE: _unpacked_weights,
    Op.DENSIFY: _unpacked_weights,
}
"""By operator."""
