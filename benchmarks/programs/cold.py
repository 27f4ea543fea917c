"""From nothing to the first answer: `python -m benchmarks.programs.cold JSON` in a fresh process.

The JSON object has `arm` ("service" or "in process"), `model` and `inputs` (paths), `loads` and
`connects` (counts). Printed are `phases`, the nanoseconds of each step of the first answer, and
`blocks`: "load" (to ready, of bytes that nobody has seen before), "answer" (the first one of such a
load), "again" (to ready, of bytes that were loaded just before), and of the service "connect".
In process there are also "hash" and "verify": what these two cost where nothing else is done.

Only the standard library is imported before the first phase begins.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import monotonic_ns
from typing import Any

from model_loader_cli.bench.machine import stolen_ticks

Blocks = dict[str, list[dict[str, Any]]]


class Phases:
    """The steps of the first answer, one after the other."""

    def __init__(self, started_ns: int) -> None:
        self.taken: dict[str, int] = {}
        self._last = started_ns

    def end(self, name: str) -> None:
        """A step ends, and the next one begins."""
        now = monotonic_ns()
        self.taken[name] = now - self._last
        self._last = now


def variant(model: bytes, number: int) -> bytes:
    """The same model in bytes of their own: what follows a FlatBuffer is not read."""
    return model + (os.getpid() << 16 | number).to_bytes(8, "little")


def timed(blocks: Blocks, name: str, action: Callable[[], Any]) -> Any:
    """Do something once, as a block of one call."""
    stolen, began = stolen_ticks(), monotonic_ns()
    result = action()
    taken = monotonic_ns() - began
    blocks.setdefault(name, []).append({"ns": [taken], "stolen": stolen_ticks() - stolen})
    return result


def service(given: dict[str, Any], phases: Phases) -> Blocks:
    """Load through an embedded service."""
    model = Path(given["model"]).read_bytes()
    phases.end("Python")
    import model_loader as ml

    phases.end("import")
    connection = ml.embed(runtime="litert")
    context = ml.create_context(connection=connection, num_threads=1)
    loader = ml.MLModelLoader(context)
    phases.end("start")
    first = loader.load(model)
    phases.end("load")
    x = _input(given)
    phases.end("input")
    first.compute(x)
    phases.end("answer")
    first.close()
    blocks: Blocks = {}
    for number in range(given["loads"]):
        data = variant(model, number)
        loaded = timed(blocks, "load", partial(loader.load, data))
        timed(blocks, "answer", partial(loaded.compute, x))
        again = timed(blocks, "again", partial(loader.load, data))
        loaded.close()
        again.close()
    for _ in range(given["connects"]):
        timed(blocks, "connect", partial(ml.connect, connection.address)).close()
    connection.close()
    return blocks


def in_process(given: dict[str, Any], phases: Phases) -> Blocks:
    """Load in this process."""
    model = Path(given["model"]).read_bytes()
    phases.end("Python")
    from ai_edge_litert.interpreter import Interpreter

    phases.end("import")

    def load(data: bytes) -> Any:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter

    def answer(interpreter: Any) -> Any:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    first = load(model)
    phases.end("load")
    x = _input(given)
    phases.end("input")
    answer(first)
    phases.end("answer")
    del first
    from loader_service.runtime.verifier.verify import verify

    blocks: Blocks = {}
    for number in range(given["loads"]):
        data = variant(model, number)
        loaded = timed(blocks, "load", partial(load, data))
        timed(blocks, "answer", partial(answer, loaded))
        again = timed(blocks, "again", partial(load, data))
        del loaded, again
        timed(blocks, "hash", partial(sha256, data))
        timed(blocks, "verify", partial(verify, data))
    return blocks


def _input(given: dict[str, Any]) -> Any:
    import numpy as np

    with np.load(given["inputs"], allow_pickle=False) as file:
        return file[file.files[0]]


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    # The variable's name is `processes.STARTED`; to import that would count as a phase.
    phases = Phases(int(os.environ["MODEL_LOADER_BENCH_STARTED_NS"]))
    given = json.loads(text)
    blocks = {"service": service, "in process": in_process}[given["arm"]](given, phases)
    return {"blocks": blocks, "phases": phases.taken}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
