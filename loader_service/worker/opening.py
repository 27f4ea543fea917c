"""From a model's bytes to a model that can be run: the verifier, then the runtime."""

from __future__ import annotations

from loader_service.runtime.engine import LoadedModel, Runtime
from loader_service.runtime.verifier.verify import verify
from loader_service.worker.orders import Go


def open_model(runtime: Runtime, model: bytes, go: Go) -> LoadedModel:
    """Verify and load; raises MalformedModel, what a runtime raises, or MemoryError."""
    verify(model, operators=go.operators, memory_bytes=go.memory_bytes or None)
    return runtime.load(model, threads=go.threads, memory_bytes=go.data_bytes)
