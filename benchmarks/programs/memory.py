"""What one loaded model costs in memory: `python -m benchmarks.programs.memory JSON`.

The JSON object has `arm` ("service" or "in process"), `model` and `inputs` (paths). Printed is
`private_bytes`: the memory that only the worker has, or by which this process grew, after a call;
null where only root may look.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.smaps import private_bytes


def in_process(model: bytes, x: Any) -> int | None:
    """The growth of this process, in which Python and the runtime are warm already."""
    from ai_edge_litert.interpreter import Interpreter

    from loader_service.writer.warm_up import warm_up_model

    def run(data: bytes, value: Any) -> Any:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        detail = interpreter.get_input_details()[0]
        interpreter.set_tensor(
            detail["index"], np.zeros(detail["shape"], detail["dtype"]) if value is None else value
        )
        interpreter.invoke()
        interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return interpreter

    run(warm_up_model(), None)
    gc.collect()
    before = private_bytes(os.getpid())
    # The runtime reads the model where its caller has it, and needs it as long as it lives: a
    # copy of its own is part of what the model costs.
    kept = run(bytes(bytearray(model)), x)
    after = private_bytes(os.getpid())
    del kept
    return None if before is None or after is None else after - before


def service(model: bytes, x: Any) -> int | None:
    """The worker of the model."""
    import model_loader as ml

    with ml.embed(runtime="litert") as connection:
        context = ml.create_context(connection=connection, num_threads=1)
        loaded = ml.MLModelLoader(context).load(model)
        loaded.compute(x)
        return private_bytes(loaded.isolation.worker_pid)


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    given = json.loads(text)
    with np.load(given["inputs"], allow_pickle=False) as file:
        x = file[file.files[0]]
    model = Path(given["model"]).read_bytes()
    measure = {"service": service, "in process": in_process}[given["arm"]]
    return {"blocks": {}, "private_bytes": measure(model, x)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
