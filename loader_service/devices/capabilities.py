"""How fast a device is and how much power it takes, by class of operators.

The figures are relative to the built-in kernels, which are 1, as NNAPI's drivers state theirs; they
decide which device an operator goes to and are no promise of a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class OperatorClass(StrEnum):
    """What an operator computes with, by its inputs and outputs."""

    FLOAT = "float"
    QUANTIZED = "quantized"
    CONTROL_FLOW = "control-flow"
    OTHER = "other"
    """Integers, booleans and strings."""


@dataclass(frozen=True, slots=True)
class Performance:
    """Relative figures; smaller is better, and the built-in kernels have 1."""

    execution_time: float
    power_usage: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A device's figures."""

    default: Performance
    classes: Mapping[OperatorClass, Performance]
    relaxed_float: Performance | None = None
    """For float operators where the caller allows reduced precision (``allow_fp16``)."""
    partition_overhead: float = 0
    """What one call of a partition costs beside its operators, in the time that the built-in
    kernels need for a multiplication and addition: handing over, waking up, converting."""
    most_partitions: int | None = None
    """How many of one model it can have; None: any number."""

    def performance(self, kind: OperatorClass, *, allow_fp16: bool) -> Performance:
        """Return the figures for operators of a class."""
        if kind is OperatorClass.FLOAT and allow_fp16 and self.relaxed_float is not None:
            return self.relaxed_float
        return self.classes.get(kind, self.default)
