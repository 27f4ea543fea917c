"""Inputs for a model, and the sizes of one call: `python -m benchmarks.programs.prepare JSON`.

The JSON object has `model`, a path, and `inputs`, where the inputs go (`.npz`): those of `stored`,
a file with `in0`, `in1` …, where it is given, else seeded ones. Printed are `request` and `reply`,
in bytes. A process of its own, so that the one that waits for the arms has no runtime, no threads
and no tensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

SEED = 1
LARGEST_INTEGER = 100


def main(text: str) -> dict[str, int]:
    """Make the inputs, and run the model once."""
    from ai_edge_litert.interpreter import Interpreter

    given = json.loads(text)
    interpreter = Interpreter(model_content=Path(given["model"]).read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    random = np.random.default_rng(SEED)
    stored = np.load(given["stored"]) if "stored" in given else {}
    arrays = []
    for position, detail in enumerate(interpreter.get_input_details()):
        kind, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
        if f"in{position}" in stored:
            arrays.append(stored[f"in{position}"])
        elif kind.kind == "f":
            arrays.append(random.random(shape, np.float32).astype(kind))
        else:
            arrays.append(random.integers(0, LARGEST_INTEGER, shape).astype(kind))
        interpreter.set_tensor(detail["index"], arrays[-1])
    interpreter.invoke()
    outputs = [
        interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()
    ]
    np.savez(given["inputs"], *arrays)
    return {
        "request": sum(array.nbytes for array in arrays),
        "reply": sum(output.nbytes for output in outputs),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
