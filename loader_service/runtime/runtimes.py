"""Finding an installed runtime by name."""

from __future__ import annotations

from importlib import import_module

from loader_service.runtime.engine import Runtime
from loader_service.runtime.interpreter import InterpreterRuntime

AUTO = "auto"
MODULES = {
    "litert": "loader_service.runtime.litert",
    "tflite-runtime": "loader_service.runtime.tflite_runtime",
}
"""By name, best first."""
INSTALL = {
    "litert": "pip install 'model-loader[service]'",
    "tflite-runtime": "pip install 'model-loader[tflite]' (Python 3.11, NumPy 1)",
}


class RuntimeNotInstalled(Exception):
    """No such runtime can be imported; the message says what to install."""


def find_runtime(name: str = AUTO) -> Runtime:
    """Import a runtime: ``"litert"``, ``"tflite-runtime"``, or ``"auto"`` for the first there is.

    Raises ValueError for another name, RuntimeNotInstalled if it cannot be imported.
    """
    if name != AUTO and name not in MODULES:
        raise ValueError(f"no runtime is called {name!r}; there are {[AUTO, *MODULES]}")
    wanted = list(MODULES) if name == AUTO else [name]
    reasons = []
    for candidate in wanted:
        try:
            return InterpreterRuntime(import_module(MODULES[candidate]).LIBRARY)
        except ImportError as error:
            reasons.append(f"{candidate}: {error}; {INSTALL[candidate]}")
    raise RuntimeNotInstalled("no runtime for TensorFlow Lite models: " + " — ".join(reasons))


def installed_runtimes() -> list[Runtime]:
    """Return every runtime that can be imported here, best first."""
    found = []
    for name in MODULES:
        try:
            found.append(find_runtime(name))
        except RuntimeNotInstalled:
            continue
    return found
