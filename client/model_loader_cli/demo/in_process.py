"""The demo's yardstick: the same model in an ordinary process, without a service or a sandbox.

`python -m model_loader_cli.demo.in_process MODULE MODEL HELD_BACK CALLS`, with `MODULE` one of
`ai_edge_litert` and `tflite_runtime`, writes one JSON object: `seconds`, the times of the calls.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from time import perf_counter

from ..arrays import read_npz
from .digits import Digits


def main(module: str, model: str, held_back: str, calls: int) -> None:
    """Time `calls` single images, each from array to array."""
    arrays = read_npz(Path(held_back))
    batch = Digits(Path(model), arrays["images"], arrays["labels"]).batch()
    interpreter = importlib.import_module(f"{module}.interpreter").Interpreter(
        model_content=Path(model).read_bytes(), num_threads=1
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    seconds = []
    for call in range(calls):
        image = batch[call % len(batch)][None]
        began = perf_counter()
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        interpreter.get_tensor(target)
        seconds.append(perf_counter() - began)
    json.dump({"seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
