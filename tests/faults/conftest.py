"""The ground that faults are tried on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ground import Ground


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every process of the tests can read."""
    made = Path(tempfile.mkdtemp(prefix="faults-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def ground(folder: Path) -> Iterator[Ground]:
    """One for each file."""
    ground = Ground(folder, compute_seconds=20, load_seconds=20)
    yield ground
    ground.close()
