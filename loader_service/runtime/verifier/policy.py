"""Which operators a model may use: two profiles, as data.

``standard``: every builtin operator, and the custom ones that the runtimes themselves carry. What
stands in a subgraph that only a named signature runs is left to the runtime, which refuses that
signature alone. ``hardened``: the operators that LiteRT hardens against hostile models, in every
subgraph; source: LiteRT's security page for WebNN (`g3doc/instructions/security.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loader_service.runtime.schema_operators import BuiltinOperator as Op
from loader_service.runtime.verifier.versions import LATEST_VERSIONS

CARRIED = frozenset(
    {
        # Registered by both runtimes.
        "AudioSpectrogram",
        "Mfcc",
        "NumericVerify",
        "TFLite_Detection_PostProcess",
        # Known to LiteRT's XNNPACK.
        "Convolution2DTransposeBias",
        "MaxPoolingWithArgmax2D",
        "MaxUnpooling2D",
    }
)
"""Custom operators that a runtime carries."""

_HARDENED = (
    Op.ABS, Op.ADD, Op.CAST, Op.CEIL, Op.COS, Op.DEQUANTIZE, Op.DIV, Op.ELU, Op.EQUAL, Op.EXP,
    Op.FLOOR, Op.GELU, Op.GREATER, Op.GREATER_EQUAL, Op.HARD_SWISH, Op.LEAKY_RELU, Op.LESS,
    Op.LESS_EQUAL, Op.LOG, Op.LOGICAL_AND, Op.LOGICAL_NOT, Op.LOGICAL_OR, Op.LOGISTIC,
    Op.MAXIMUM, Op.MINIMUM, Op.MUL, Op.NEG, Op.NOT_EQUAL, Op.POW, Op.PRELU, Op.QUANTIZE, Op.RELU,
    Op.RELU6, Op.RELU_0_TO_1, Op.RELU_N1_TO_1, Op.ROUND, Op.SELECT_V2, Op.SIGN, Op.SIN, Op.SQRT,
    Op.SQUARE, Op.SUB, Op.TANH, Op.ARG_MAX, Op.ARG_MIN, Op.AVERAGE_POOL_2D, Op.BATCH_MATMUL,
    Op.BROADCAST_TO, Op.CONCATENATION, Op.CONV_2D, Op.CUMSUM, Op.DEPTHWISE_CONV_2D,
    Op.FULLY_CONNECTED, Op.GATHER, Op.GATHER_ND, Op.MAX_POOL_2D, Op.MEAN, Op.MIRROR_PAD, Op.PAD,
    Op.PADV2, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_PROD, Op.RESHAPE, Op.RESIZE_BILINEAR,
    Op.RESIZE_NEAREST_NEIGHBOR, Op.REVERSE_V2, Op.SCATTER_ND, Op.SLICE, Op.SOFTMAX, Op.SPLIT_V,
    Op.SQUEEZE, Op.STRIDED_SLICE, Op.SUM, Op.TILE, Op.TRANSPOSE, Op.TRANSPOSE_CONV,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """What a model may use: builtin operators and their latest versions, and custom operators."""

    name: str
    builtin: Mapping[Op, int]
    custom: frozenset[str]
    strings: bool
    """Whether tensors may hold strings, or handles of resources and variants."""
    every_subgraph: bool
    """Whether a subgraph counts that is not run by default."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("standard", LATEST_VERSIONS, CARRIED, strings=True, every_subgraph=False),
        Profile(
            "hardened",
            {code: LATEST_VERSIONS[code] for code in _HARDENED},
            frozenset(),
            strings=False,
            every_subgraph=True,
        ),
    )
}
"""By the name that a setting gives."""
