"""Load to ready, and private memory: ``python -m benchmarks.loading ARM MODEL`` in a fresh process.

Prints a JSON object: the times of some loads in nanoseconds (the first, cold one apart), and the
private memory in bytes that one loaded model which has answered once costs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter_ns

import numpy as np

REPEATS = 5


def private_bytes(pid: int) -> int | None:
    """Memory that only this process has; None where only root may look."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private"))


def in_process(model: bytes) -> dict[str, object]:
    """Load in this process, with Python and the runtime warm."""
    from ai_edge_litert.interpreter import Interpreter

    from loader_service.writer.warm_up import warm_up_model

    warm = Interpreter(model_content=warm_up_model(), num_threads=1)
    warm.allocate_tensors()
    warm.invoke()
    before = private_bytes(os.getpid()) or 0
    times = []
    kept = None
    memory = 0
    for _ in range(REPEATS):
        kept = None
        began = perf_counter_ns()
        # The service holds a copy of its own too.
        kept = Interpreter(model_content=bytes(bytearray(model)), num_threads=1)
        kept.allocate_tensors()
        times.append(perf_counter_ns() - began)
        kept.invoke()
        memory = memory or (private_bytes(os.getpid()) or 0) - before
    return {"load_ns": times, "private_bytes": memory}


def service(model: bytes) -> dict[str, object]:
    """Load through an embedded service that is running."""
    import model_loader as ml

    began = perf_counter_ns()
    connection = ml.embed(runtime="litert")
    started = perf_counter_ns() - began
    context = ml.create_context(connection=connection, num_threads=1)
    loader = ml.MLModelLoader(context)
    times = []
    memory = None
    for _ in range(REPEATS):
        began = perf_counter_ns()
        loaded = loader.load(model)
        times.append(perf_counter_ns() - began)
        (tensor,) = loaded.inputs()
        shape = tuple(size or 1 for size in tensor.dimensions or ())
        loaded.compute(np.zeros(shape, tensor.data_type))
        memory = memory or private_bytes(loaded.isolation.worker_pid)
        loaded.close()
    connection.close()
    return {"start_ns": started, "load_ns": times, "private_bytes": memory}


if __name__ == "__main__":
    arm = {"in-process": in_process, "service": service}[sys.argv[1]]
    print(json.dumps(arm(Path(sys.argv[2]).read_bytes())))
