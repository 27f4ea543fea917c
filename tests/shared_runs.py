"""The stored runs of the third-party models: which models run, and with what inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.shared_models import ABSENT, SharedModel, select

Array = np.ndarray[Any, Any]

HOG = "hog_conv_huge_im2col"
"""Runs, but only with gigabytes: it has tests of its own."""

UNSUPPORTED_BY_TFLITE_RUNTIME = {
    # A custom operator that only LiteRT's XNNPACK knows, and an operator that came later.
    "mp_selfie_segmentation",
    "mp_selfie_segmentation_landscape",
    "sdpa_composite",
}


LARGE = frozenset({"basic_pitch_nmp"})
"""Takes seconds for its calls."""


def each_that_runs(
    kind: str | None = None, slow: frozenset[str] = frozenset()
) -> pytest.MarkDecorator:
    """Parametrize by the models that run, without the hog.

    `kind`: only those with a stored run of that kind. `slow`: the names of those that take long.
    """
    parameters = [
        pytest.param(model, id=model.name, marks=pytest.mark.slow if model.name in slow else ())
        for model in select(runs=True)
        if model.name != HOG and (kind is None or model.expected_of(kind))
    ] or [pytest.param(None, id="none", marks=pytest.mark.skip(reason=ABSENT))]
    return pytest.mark.parametrize("shared_model", parameters)


def stored_inputs(arrays: Mapping[str, Any]) -> list[Array]:
    """Return the inputs of a stored run, in order."""
    found: list[Array] = []
    while f"in{len(found)}" in arrays:
        array = arrays[f"in{len(found)}"]
        found.append(array.astype(object) if array.dtype.kind == "S" else array)
    return found


def first_inputs(shared_model: SharedModel) -> list[Array]:
    """Return the inputs of a model's first stored run."""
    runs = shared_model.expected_of("random") or shared_model.expected_of("real")
    with np.load(runs[0].path) as arrays:
        return stored_inputs(arrays)
