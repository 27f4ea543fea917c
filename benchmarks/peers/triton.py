"""Triton Inference Server from the wheel of PyTriton, with its Python backend.

The wheel holds the server, the backend, and a stub for each version of Python. Runs in the peer's
Python environment.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.model import PeerModel
from benchmarks.peers.server import Server, free_port

CONFIGURATION = """
backend: "python"
max_batch_size: 0
input [{{ name: "x", data_type: TYPE_FP32, dims: {inputs} }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: {outputs} }}]
instance_group [{{ kind: KIND_CPU, count: 1 }}]
"""
STUB = "triton_python_backend_stub"
SHARED_MEMORY = Path("/dev/shm")
END_SECONDS = 3


def start(models: Sequence[PeerModel], folder: Path) -> tuple[Server, str]:
    """Start it in an empty folder; returns the server, and the address of its gRPC."""
    packages = Path(site.getsitepackages()[0])
    wheel = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(wheel / "python_backend_stubs" / version / STUB, backend / STUB)
    for model in models:
        place = folder / "models" / model.served_as
        (place / "1").mkdir(parents=True)
        shape = model.array().shape
        (place / "config.pbtxt").write_text(
            CONFIGURATION.format(inputs=list(shape), outputs=list(model.answer))
        )
        code = Path(__file__).parent / "served" / "triton_model.py"
        shutil.copy(code, place / "1" / "model.py")
        shutil.copy(model.path, place / "1" / "model.tflite")
    port = free_port()
    command = [
        str(wheel / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={_region(folder)}",
        "--disable-auto-complete-config",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        f"--exit-timeout-secs={END_SECONDS}",
    ]
    libraries = (packages / "nvidia_pytriton.libs", Path(sys.base_prefix) / "lib")
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        # By it the stub finds the Python environment whose packages it is to have.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
    }
    return Server(command, folder, environment), f"127.0.0.1:{port}"


def tidy(folder: Path) -> None:
    """Remove what a server that was killed left in shared memory."""
    for left in SHARED_MEMORY.glob(f"{_region(folder)}*"):
        left.unlink(missing_ok=True)


def _region(folder: Path) -> str:
    return f"{folder.name}-"
