"""Rules for operators that take a part of a tensor, or turn it round: places that must exist.

Sources: CVE-2021-37686 (STRIDED_SLICE without end), and fuzzing: kernels of both runtimes read
wherever the file's numbers lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.look import Look, Rule, axis_broken
from loader_service.runtime.verifier.tensors import MAXIMUM_RANK

LARGEST_STRIDE = 1 << 30
"""Of a slice: kernels add it to an index of 32 bits before they compare."""


def _strided_slice(look: Look) -> Iterator[str]:
    vectors = [look.constant(position) for position in (1, 2, 3)]
    lengths = {len(vector) for vector in vectors if vector is not None}
    if len(lengths) > 1:
        yield "begin, end and strides differ in length"
    if any(length > MAXIMUM_RANK for length in lengths):
        yield f"slices more than {MAXIMUM_RANK} dimensions"
    strides = vectors[2]
    if strides is not None and any(not 0 < abs(stride) <= LARGEST_STRIDE for stride in strides):
        yield f"its strides are {strides}"
    ellipsis = look.option("ellipsis_mask")
    if ellipsis < 0 or ellipsis & (ellipsis - 1):
        yield f"more than one ellipsis (mask {ellipsis:#x})"
    rank = look.rank(0)
    if rank is not None and lengths:
        # What an ellipsis stands for must not be less than nothing: the kernel would never end.
        (length,) = lengths
        sliced = length - (look.option("new_axis_mask") & 0xFF).bit_count() - bool(ellipsis)
        if sliced > rank:
            yield f"slices {sliced} of {rank} dimensions"


def _slice(look: Look) -> Iterator[str]:
    begin, size, rank = look.constant(1), look.constant(2), look.rank(0)
    shape = look.dimensions(0)
    if shape is not None and begin is not None and len(begin) == len(shape):
        # A size of -1 goes to the end, as every size does that begins there.
        sizes = size if size is not None and len(size) == len(shape) else (-1,) * len(shape)
        for number, there in enumerate(shape):
            if there >= 0 and begin[number] + max(sizes[number], 0) > there:
                yield f"takes {sizes[number]} from {begin[number]} of {there} in dimension {number}"
    result = look.output_dimensions()
    if size is not None and result is not None and len(size) == len(result):
        for wanted, there in zip(size, result, strict=True):
            if wanted >= 0 and there not in (-1, wanted):
                yield f"takes the size {size}, and its output has {result}"
    for name, values, least in (("begin", begin, 0), ("size", size, -1)):
        if values is None:
            continue
        if rank is not None and len(values) != rank:
            yield f"{name} has {len(values)} numbers for {rank} dimensions"
        if min(values, default=0) < least:
            yield f"{name} is {values}"


def _reverse_sequence(look: Look) -> Iterator[str]:
    for name in ("seq_dim", "batch_dim"):
        yield from axis_broken(look.option(name), look.rank(0), name)
    lengths, shape, along = look.constant(1), look.dimensions(0), look.option("seq_dim")
    if lengths and shape is not None and -len(shape) <= along < len(shape):
        most = shape[along]
        if min(lengths) < 0 or max(lengths) > most >= 0:
            yield f"reverses {max(lengths)} (and {min(lengths)}) of {most}"


def _gather(look: Look) -> Iterator[str]:
    rank = look.rank(0)
    yield from axis_broken(look.option("axis"), rank)
    axis, batch = look.option("axis"), look.option("batch_dims")
    yield from axis_broken(batch, None if rank is None else rank + 1, "batch_dims")
    shape, indices = look.shape(0), look.constant(1)
    if shape and indices and -len(shape) <= axis < len(shape):
        size = shape[axis]
        if min(indices) < 0 or max(indices) >= size:
            yield f"gathers index {max(indices)} (and {min(indices)}) of {size}"


SLICES: Mapping[Op, Rule] = {
    Op.STRIDED_SLICE: _strided_slice,
    Op.SLICE: _slice,
    Op.REVERSE_SEQUENCE: _reverse_sequence,
    Op.GATHER: _gather,
}
"""By operator."""
