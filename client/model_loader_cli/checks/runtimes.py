"""Which interpreters are installed, found by importing each in a process of its own.

`python -m model_loader_cli.checks.runtimes NAME` imports one and writes its version.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module

NAMES = ("litert", "tflite-runtime")
REMEDIES = {
    "litert": "pip install 'model-loader[service]'",
    "tflite-runtime": "pip install 'model-loader[tflite]' (needs Python 3.11 and NumPy 1)",
}
SECONDS = 60.0
"""An import that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class InstalledRuntime:
    """One interpreter: its version, or why it cannot be used."""

    name: str
    version: str
    """"" where it cannot be imported."""
    detail: str
    remedy: str


def look_at_runtimes() -> list[InstalledRuntime]:
    """Try every interpreter that the service knows, best first."""
    return [_try(name) for name in NAMES]


def _try(name: str) -> InstalledRuntime:
    remedy = REMEDIES[name]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return InstalledRuntime(name, "", f"importing it took more than {SECONDS:g} s", remedy)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return InstalledRuntime(name, "", last[0], remedy)
    return InstalledRuntime(name, done.stdout.strip(), "", "")


def main(name: str) -> int:
    """Import one interpreter and write its version; returns the exit status."""
    try:
        from loader_service.runtime.runtimes import MODULES

        print(import_module(MODULES[name]).LIBRARY.version)
    except ImportError as error:
        print(str(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
