"""Sends one mutant through the service: load, perhaps inspect, and compute where it loads."""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

import numpy as np

import model_loader as ml
from model_loader_wire.causes import Cause
from tests.fuzz.models.mutants import Mutant

LARGEST_INPUT = 4 << 20
"""Bytes of one input that are made up; a model that wants more is loaded and not asked."""

MOST_CALLS = 4
"""Computations of one mutant: each of so many signatures once."""

DEATHS = frozenset(
    (
        Cause.CRASHED, Cause.OUT_OF_MEMORY, Cause.CPU_TIME, Cause.TIMEOUT, Cause.POLICY_VIOLATION,
        Cause.PROTOCOL_VIOLATION, Cause.KILLED,
    )
)  # fmt: skip
"""Causes that mean that the worker died of the mutant."""

CLEAN = frozenset(
    (Cause.INVALID_MODEL, Cause.UNSUPPORTED, Cause.LIMIT, Cause.FAILED, Cause.INVALID_INPUT)
)
"""Causes by which a mutant is refused, or an operator fails, in good order."""

Array = np.ndarray[Any, Any]


class Outcome(NamedTuple):
    """How a mutant ended."""

    kind: str
    """``"answer"``, ``"refused"``, ``"death"`` or ``"fault"`` (what the service may not say)."""
    cause: str
    """The error's cause, for a death by a signal with its name."""
    detail: str = ""


def ask(loader: ml.MLModelLoader, mutant: Mutant, timeout: float) -> Outcome:
    """Load the mutant and compute once for each of its signatures, with made-up inputs."""
    generator = random.Random(mutant.number)
    try:
        with loader.load(mutant.data) as model:
            return _compute(model, generator, timeout)
    except ml.ModelLoaderError as error:
        return judged(error)
    except Exception as error:
        return Outcome("fault", type(error).__name__, repr(error))


def look(connection: ml.Connection, mutant: Mutant) -> Outcome:
    """Have the service inspect the mutant."""
    try:
        connection.inspect(mutant.data)
    except ml.ModelLoaderError as error:
        return judged(error)
    except Exception as error:
        return Outcome("fault", type(error).__name__, repr(error))
    return Outcome("answer", "inspected")


def judged(error: ml.ModelLoaderError) -> Outcome:
    """Say what an error of the service means for the run."""
    if error.cause in DEATHS:
        named = re.search(r"\bSIG[A-Z]+|status \d+", error.message)
        cause = named[0] if named and error.cause == Cause.CRASHED else str(error.cause)
        return Outcome("death", cause, error.message)
    if error.cause in CLEAN:
        return Outcome("refused", str(error.cause), error.message)
    return Outcome("fault", str(error.cause), str(error))


def _compute(model: ml.MLModel, generator: random.Random, timeout: float) -> Outcome:
    outcome = Outcome("answer", "answered")
    for signature in (None, *model.signatures()[: MOST_CALLS - 1]):
        inputs = made_up(model.inputs(signature), generator)
        if inputs is None:
            outcome = Outcome("answer", "loaded, not asked")
            continue
        try:
            model.compute(inputs, signature=signature, timeout=timeout)
        except ml.ModelLoaderError as error:
            outcome = judged(error)
            if outcome.kind != "refused":
                return outcome
    return outcome


def made_up(
    tensors: tuple[ml.MLTensorInfo, ...], generator: random.Random
) -> dict[str, Array] | None:
    """Return random inputs; None where they would be larger than `LARGEST_INPUT`."""
    values = np.random.default_rng(generator.randrange(2**32))
    inputs: dict[str, Array] = {}
    for info in tensors:
        shape = tuple(
            generator.choice((1, 1, 2, 3)) if size is None else size
            for size in info.dimensions or ()
        )
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if 8 * count > LARGEST_INPUT:
            return None
        inputs[info.name] = _array(info.data_type, shape, count, values)
    return inputs


def _array(
    data_type: str, shape: tuple[int, ...], count: int, values: np.random.Generator
) -> Array:
    if data_type == "string":
        return np.full(shape, b"text", object)
    if data_type == "unknown":
        return values.integers(0, 256, count, np.uint8)
    if data_type == "bool":
        return values.integers(0, 2, shape).astype(bool)
    kind = np.dtype(data_type)
    if kind.kind == "f":
        return (4 * values.standard_normal(shape)).astype(kind)
    if values.random() < 0.5:
        # Small numbers: indices, sizes and shapes that operators take.
        return values.integers(0, 4, shape).astype(kind)
    return values.integers(0, 256, count * kind.itemsize, np.uint8).view(kind).reshape(shape)
