"""One arm in one fresh process: `python -m model_loader_cli.bench.arm JSON`.

The JSON object has `arm`, a name in `arms.ARMS`; `order`, the fields of `arms.Order`; and
`conditions`. What is printed is a JSON object with `blocks`: for each condition, its blocks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from .arms import ARMS, Order
from .blocks import conditions_of, measure, warm_up


def main(text: str) -> dict[str, Any]:
    """Open the arm, warm it up, and run all conditions."""
    given = json.loads(text)
    opened = ARMS[given["arm"]](Order(**given["order"]))
    try:
        warm_up(opened.call)
        return {
            "blocks": {
                condition.name: measure(opened.call, condition)
                for condition in conditions_of(given["conditions"])
            }
        }
    finally:
        opened.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
