"""Each test that takes `runtime` runs on LiteRT and, where it is installed, on tflite-runtime."""

from __future__ import annotations

import pytest

from loader_service.runtime.interpreter import InterpreterRuntime
from tests.runtime.engines import LITERT, NAMES, engine


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> InterpreterRuntime:
    """Every runtime in turn; skipped with the reason where it is not installed."""
    return engine(request.param)


@pytest.fixture
def litert() -> InterpreterRuntime:
    """LiteRT, for what the older runtime does not know."""
    return engine(LITERT)
