"""Many workers of one service: `python -m benchmarks.programs.workers JSON`.

The JSON object has `model` and `inputs` (paths, a tiny model) and `counts`, rising numbers of
workers. Printed is `counts`: for each, the `answers` that its workers gave, `service_bytes` (the
proportional share of memory of the broker and all its processes), `private_bytes` (the median over
the workers) and `call_ns` (the median of a call while all are alive). Memory is null where only
root may look.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.smaps import private_bytes, tree_share_bytes

ROUNDS = 5


def main(text: str) -> dict[str, Any]:
    """Load more and more models, and look at each count."""
    import model_loader as ml

    given = json.loads(text)
    with np.load(given["inputs"], allow_pickle=False) as file:
        x = file[file.files[0]]
    model = Path(given["model"]).read_bytes()
    most = max(given["counts"])
    limits = ml.Limits(models_per_origin=most + 1, processes=most + 28)
    counts = {}
    with ml.embed(runtime="litert", limits=limits) as connection:
        assert connection.broker_pid is not None
        loader = ml.MLModelLoader(ml.create_context(connection=connection, num_threads=1))
        models: list[Any] = []
        for count in given["counts"]:
            models += [loader.load(model) for _ in range(count - len(models))]
            times, answers = [], 0
            for _ in range(ROUNDS):
                answers = 0
                for loaded in models:
                    began = perf_counter_ns()
                    answers += np.asarray(loaded.compute(x)).size == 1
                    times.append(perf_counter_ns() - began)
            private = [private_bytes(loaded.isolation.worker_pid) for loaded in models]
            known = [value for value in private if value is not None]
            counts[str(count)] = {
                "answers": answers,
                "processes": len({loaded.isolation.worker_pid for loaded in models}),
                "service_bytes": tree_share_bytes(connection.broker_pid),
                "private_bytes": statistics.median(known) if len(known) == count else None,
                "call_ns": statistics.median(times),
            }
    return {"blocks": {}, "counts": counts}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
