"""Interpreters with devices' delegates, on each runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.runtime.native import Library
from tests.devices.little_delegate import compile_delegate
from tests.runtime.engines import NAMES, engine


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> InterpreterRuntime:
    """Every runtime in turn; skipped with the reason where it is not installed."""
    return engine(request.param)


@pytest.fixture
def library(runtime: InterpreterRuntime) -> Library:
    """Its library."""
    return runtime.library


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' delegate, compiled."""
    return compile_delegate(tmp_path_factory.mktemp("delegate"))


@pytest.fixture(scope="session")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' delegate, which starts two threads when it is loaded."""
    return compile_delegate(tmp_path_factory.mktemp("threaded"), threads=2)
