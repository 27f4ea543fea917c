"""The second runtime: its last release needs an older NumPy, so it has a Python of its own."""

from __future__ import annotations

from benchmarks.models import REPOSITORY
from model_loader_cli.bench.processes import Arm, run

SECOND_PYTHON = REPOSITORY / ".venv-tflite" / "bin" / "python"
"""Made by `make .venv-tflite/installed`, where Python 3.11 is."""


def versions() -> dict[str, str] | None:
    """Versions of its packages; None where it is not installed. Raises ArmFailed."""
    if not SECOND_PYTHON.exists():
        return None
    machine = run(Arm("model_loader_cli.bench.machine", python=str(SECOND_PYTHON)))
    packages: dict[str, str] = machine["packages"]
    return packages
