"""MLServer, with or without worker processes. Runs in the peer's Python environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.model import PeerModel
from benchmarks.peers.server import Server, free_port

RUNTIME = "mlserver_runtime.LiteRT"


def start(models: Sequence[PeerModel], folder: Path, workers: int) -> tuple[Server, str]:
    """Start it in an empty folder; returns the server, and the address of its gRPC."""
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": port,
        "metrics_endpoint": None,
        "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
        "parallel_workers": workers,
        "debug": False,
    }
    (folder / "metrics").mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    for model in models:
        place = folder / model.served_as
        place.mkdir()
        about = {
            "name": model.served_as,
            "implementation": RUNTIME,
            "parameters": {"uri": str(model.path)},
        }
        (place / "model-settings.json").write_text(json.dumps(about))
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(folder)]
    served = Path(__file__).parent / "served"
    return Server(command, folder, {"PYTHONPATH": str(served)}), f"127.0.0.1:{port}"
