"""What each device makes of each model: `python -m benchmarks.programs.devices JSON`.

The JSON object has `candidates`, the fields of each `Candidate`, and `orders`, the fields of
`arms.Order` for each model, by the model's name. Printed are, by model, the trials.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from model_loader_cli.bench.arms import Order
from model_loader_cli.bench.candidate import Candidate, enabled_for, try_out


def main(text: str) -> dict[str, Any]:
    """Run each model once on each device, in one service."""
    import model_loader as ml

    given = json.loads(text)
    chosen = [Candidate(**values) for values in given["candidates"]]
    trials = {}
    with ml.embed(runtime="litert", devices=enabled_for(chosen)) as connection:
        for name, values in given["orders"].items():
            order = Order(**values)
            found = try_out(connection, Path(order.model), order.arrays(), chosen, order.threads)
            trials[name] = [trial.to_json() for trial in found]
    return trials


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
