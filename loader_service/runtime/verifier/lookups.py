"""Rules for operators whose constants say where or how much they write: segments and lookups.

Sources: CVE-2020-15213 and CVE-2020-15214 (SEGMENT_SUM), CVE-2021-29605 and CVE-2022-23558
(EMBEDDING_LOOKUP_SPARSE), CVE-2020-15208 (dimensions that should match).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import prod

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.look import Look, Rule
from loader_service.runtime.verifier.tensors import LARGEST_COUNT


def _segment_sum(look: Look) -> Iterator[str]:
    ids, shape = look.constant(1), look.shape(0)
    if not ids:
        return
    if min(ids) < 0 or any(a > b for a, b in pairwise(ids)):
        yield "its segment ids are not sorted"
    if shape is not None:
        if len(ids) != shape[0]:
            yield f"{len(ids)} segment ids for {shape[0]} rows"
        if (max(ids) + 1) * prod(shape[1:]) > LARGEST_COUNT:
            yield f"segment {max(ids)} makes more than {LARGEST_COUNT} elements"


def _unsorted_segments(look: Look) -> Iterator[str]:
    count, shape, ids = look.constant(2), look.shape(0), look.constant(1)
    if count is None:
        return
    if len(count) != 1 or count[0] < 0:
        yield f"its number of segments is {count}"
    elif shape is not None and count[0] * prod(shape[len(look.shape(1) or (1,)) :]) > LARGEST_COUNT:
        yield f"{count[0]} segments make more than {LARGEST_COUNT} elements"
    elif ids and max(ids) >= count[0]:
        yield f"writes segment {max(ids)} of {count[0]}"


def _embedding_lookup(look: Look) -> Iterator[str]:
    ids, shape = look.constant(0), look.shape(1)
    if look.rank(0) not in (None, 1):
        yield f"its ids have {look.rank(0)} dimensions"
    if shape is not None and len(shape) < 2:
        yield f"its table has {len(shape)} dimensions"
    if ids and shape and (min(ids) < 0 or max(ids) >= shape[0]):
        yield f"looks up row {max(ids)} (and {min(ids)}) of {shape[0]}"


def _embedding_lookup_sparse(look: Look) -> Iterator[str]:
    for position, rank in ((0, 1), (1, 2), (2, 1), (3, 1)):
        if look.rank(position) not in (None, rank):
            yield f"input {position} has {look.rank(position)} dimensions, not {rank}"
    dense, table = look.constant(2), look.shape(4)
    if table is not None and len(table) < 2:
        yield f"its table has {len(table)} dimensions"
    if dense is None:
        return
    elements = prod(dense[:-1]) * prod((table or (1,))[1:])
    if not dense or min(dense) < 0 or elements > LARGEST_COUNT:
        yield f"its dense shape is {dense}"
    indices = look.shape(1)
    if indices is not None and len(indices) == 2 and indices[1] != len(dense):
        yield f"indices of {indices[1]} numbers for a dense shape of {len(dense)}"


def _gather_nd(look: Look) -> Iterator[str]:
    shape, indices, places = look.shape(0), look.shape(1), look.constant(1)
    if not shape or not indices:
        return
    depth = indices[-1]
    if depth > len(shape):
        yield f"indices of {depth} numbers for {len(shape)} dimensions"
    elif places and depth:
        for number in range(depth):
            column = places[number::depth]
            if min(column) < 0 or max(column) >= shape[number]:
                yield f"gathers index {max(column)} of {shape[number]} in dimension {number}"
                return


def _scatter_nd(look: Look) -> Iterator[str]:
    places, indices, shape = look.constant(0), look.shape(0), look.constant(2)
    if not places or not indices or shape is None:
        return
    depth = indices[-1]
    if depth > len(shape):
        yield f"indices of {depth} numbers for {len(shape)} dimensions"
    elif depth:
        for number in range(depth):
            column = places[number::depth]
            if min(column) < 0 or max(column) >= shape[number]:
                yield f"writes index {max(column)} of {shape[number]} in dimension {number}"
                return


def _fully_connected(look: Look) -> Iterator[str]:
    weights = look.shape(1)
    if weights is None:
        return
    if len(weights) != 2 or min(weights) < 1:
        yield f"its weights have the shape {weights}"
        return
    bias, value = look.shape(2), look.shape(0)
    if bias is not None and prod(bias) != weights[0]:
        yield f"its bias of shape {bias} is not for {weights[0]} units"
    if value is not None and prod(value) % weights[1]:
        yield f"{prod(value)} inputs do not divide into rows of {weights[1]}"


def _svdf(look: Look) -> Iterator[str]:
    rank, features = look.option("rank"), look.shape(1)
    if rank < 1 or (features is not None and (len(features) != 2 or features[0] % rank)):
        yield f"rank {rank} does not divide features of shape {features}"
        return
    value, time = look.shape(0), look.shape(2)
    if value is not None and features is not None and value[-1] != features[1]:
        yield f"an input of shape {value} for features of shape {features}"
    if time is not None and features is not None and time[0] != features[0]:
        yield f"time weights of shape {time} for features of shape {features}"


def _top_k(look: Look) -> Iterator[str]:
    count, shape = look.constant(1), look.shape(0)
    if count is not None and (len(count) != 1 or count[0] < 0):
        yield f"takes the largest {count}"
    elif count is not None and shape and count[0] > shape[-1]:
        yield f"takes the largest {count[0]} of {shape[-1]}"


def _tile(look: Look) -> Iterator[str]:
    times, shape = look.constant(1), look.shape(0)
    if times is None:
        return
    if min(times, default=0) < 0:
        yield f"repeats {times} times"
    elif shape is not None and prod(times) * prod(shape) > LARGEST_COUNT:
        yield f"{shape} repeated {times} times has more than {LARGEST_COUNT} elements"


def _range(look: Look) -> Iterator[str]:
    step = look.constant(2)
    if step is not None and (len(step) != 1 or step[0] == 0):
        yield f"its step is {step}"


_SEGMENTS = (
    Op.UNSORTED_SEGMENT_MAX, Op.UNSORTED_SEGMENT_MIN, Op.UNSORTED_SEGMENT_PROD,
    Op.UNSORTED_SEGMENT_SUM,
)  # fmt: skip

LOOKUPS: Mapping[Op, Rule] = {
    **dict.fromkeys(_SEGMENTS, _unsorted_segments),
    Op.SEGMENT_SUM: _segment_sum,
    Op.EMBEDDING_LOOKUP: _embedding_lookup,
    Op.EMBEDDING_LOOKUP_SPARSE: _embedding_lookup_sparse,
    Op.GATHER_ND: _gather_nd,
    Op.SCATTER_ND: _scatter_nd,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.SVDF: _svdf,
    Op.TOPK_V2: _top_k,
    Op.TILE: _tile,
    Op.RANGE: _range,
}
"""By operator."""
