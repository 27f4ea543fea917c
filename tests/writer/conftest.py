"""Each test of a model runs on LiteRT and, where it is installed, on tflite-runtime."""

from __future__ import annotations

import pytest

from .running import LITERT, TFLITE_RUNTIME, Runtime, require


@pytest.fixture(params=[LITERT, TFLITE_RUNTIME])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Both runtimes in turn."""
    return require(request.param)


@pytest.fixture
def litert() -> Runtime:
    """LiteRT, for what the older runtime does not know."""
    return require(LITERT)
