"""What is said beside every figure: the machine, the versions, and the time stolen from it.

`python -m model_loader_cli.bench.machine` prints it as JSON, for another Python environment.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "model-loader",
    "ai-edge-litert",
    "tflite-runtime",
    "openvino",
    "numpy",
    "grpcio",
    "protobuf",
)


def describe() -> dict[str, Any]:
    """Return the facts that a reader needs to judge the figures."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions,
        "uid": os.getuid(),
        "load_average": os.getloadavg()[0],
        "stolen_ticks": stolen_ticks(),
    }


def stolen_ticks() -> int:
    """Clock ticks that the hypervisor gave to others since boot (/proc/stat, field "steal")."""
    return int(Path("/proc/stat").read_text().splitlines()[0].split()[8])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    print(json.dumps(describe()))
