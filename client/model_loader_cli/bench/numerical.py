"""How far one computation's answers are from another's: what reduced precision costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..tensors import Array

SMALLEST = 1e-6
"""Answers that are all below this are compared with this: zeros have no share."""


class NotComparable(ValueError):
    """Other names, shapes or types; or values that differ where no number tells by how much."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference over all outputs, by kind of output."""

    relative: float = 0.0
    """Of floating-point outputs, as a share of the largest absolute value of the same output."""
    steps: int = 0
    """Of integer outputs, in their own unit: for quantized ones, steps of the scale."""


def difference(answers: Mapping[str, Array], reference: Mapping[str, Array]) -> Difference:
    """Compare answers by output; raises NotComparable.

    "Not a number" and infinities must stand in the same places.
    """
    if answers.keys() != reference.keys():
        raise NotComparable(f"outputs {sorted(answers)} are not {sorted(reference)}")
    relative, steps = 0.0, 0
    for name, wanted in reference.items():
        answer = answers[name]
        if (answer.shape, answer.dtype) != (wanted.shape, wanted.dtype):
            raise NotComparable(
                f"{name}: {answer.dtype} {answer.shape} is not {wanted.dtype} {wanted.shape}"
            )
        if wanted.dtype.kind in "fc":
            relative = max(relative, _relative(name, answer, wanted))
        elif wanted.dtype.kind in "iu":
            steps = max(steps, _steps(answer, wanted))
        elif not np.array_equal(answer, wanted):
            raise NotComparable(f"{name}: {wanted.dtype} values differ")
    return Difference(relative, steps)


def shown_difference(off_by: Difference | None) -> str:
    """How far answers are off, for people: a share of the largest answer, steps, or both."""
    if off_by is None:
        return "–"
    parts = [f"{off_by.relative:.1e}"] if off_by.relative else []
    if off_by.steps:
        parts.append(f"{off_by.steps} step{'s' if off_by.steps > 1 else ''}")
    return ", ".join(parts) or "0"


def _relative(name: str, answer: Array, wanted: Array) -> float:
    finite = np.isfinite(wanted)
    if not np.array_equal(answer[~finite], wanted[~finite], equal_nan=True):
        raise NotComparable(f"{name}: other values are infinite or no numbers")
    ours, theirs = answer[finite], wanted[finite]
    if not np.isfinite(ours).all():
        raise NotComparable(f"{name}: other values are infinite or no numbers")
    largest = max(float(np.max(np.abs(theirs), initial=0)), SMALLEST)
    return float(np.max(np.abs(ours - theirs), initial=0)) / largest


def _steps(answer: Array, wanted: Array) -> int:
    # The larger less the smaller, in their own type's unsigned twin: nothing overflows.
    larger, smaller = np.maximum(answer, wanted), np.minimum(answer, wanted)
    twin = np.dtype(f"u{wanted.dtype.itemsize}")
    apart = larger.astype(twin) - smaller.astype(twin)
    return int(np.max(apart, initial=0))
