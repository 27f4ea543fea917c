"""Which peers are measured, what is installed for them, and by what roads they are called: data.

Imports nothing that a peer's Python environment has not got.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TRITON_GRPC = "Triton, gRPC"
TRITON_SHARED_MEMORY = "Triton, gRPC and shared memory"
MLSERVER_WORKER = "MLServer, gRPC, a worker process (its default)"
MLSERVER_ALONE = "MLServer, gRPC, no worker process"

CLIENT = "tritonclient[grpc]>=2.73,<3"
"""Speaks the Open Inference Protocol with any server of it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that others made."""

    name: str
    folder: str
    """Its Python environment, below the repository."""
    requirements: Sequence[str]
    """What pip installs, beside the runtime that all arms have in common."""
    packages: Sequence[str]
    """Those whose versions are told beside the figures."""
    arms: Sequence[str]


PEERS = (
    Peer(
        name="Triton",
        folder=".venv-triton",
        requirements=("nvidia-pytriton>=0.7,<0.8", CLIENT),
        packages=("nvidia-pytriton", "tritonclient", "numpy", "grpcio"),
        arms=(TRITON_GRPC, TRITON_SHARED_MEMORY),
    ),
    Peer(
        name="MLServer",
        folder=".venv-mlserver",
        # Its own uvloop is not bounded, and 0.22 took away what it calls.
        requirements=("mlserver>=1.7,<1.8", "uvloop<0.22", CLIENT),
        packages=("mlserver", "tritonclient", "numpy", "grpcio"),
        arms=(MLSERVER_WORKER, MLSERVER_ALONE),
    ),
)
