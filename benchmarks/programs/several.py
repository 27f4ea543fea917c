"""Several models by one arm, one after the other: `python -m benchmarks.programs.several JSON`.

The JSON object has `arm`, a name in `arms.ARMS`; `orders`, the fields of `arms.Order` for each
model, by the model's name; and `conditions`, one for each model. Printed are `blocks`, by the
model's name, and `answers`: the SHA-256 of each model's first answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

from model_loader_cli.bench.blocks import Call, conditions_of, measure, warm_up


def measured(
    models: Mapping[str, Callable[[], AbstractContextManager[Call]]],
    conditions: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Open each model, warm it up, and run its condition."""
    blocks, answers = {}, {}
    for name, opened in models.items():
        (condition,) = conditions_of([conditions[name]])
        with opened() as call:
            answers[name] = digest(call())
            warm_up(call)
            blocks[name] = measure(call, condition)
    return {"blocks": blocks, "answers": answers}


def digest(answer: Any) -> str:
    """What two arms that computed the same have in common: the bytes of the outputs, in order."""
    known = sha256()
    waiting = [answer]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, (list, dict)):
            waiting[:0] = value.values() if isinstance(value, dict) else value
        else:
            known.update(memoryview(value).cast("B"))
    return known.hexdigest()


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    from model_loader_cli.bench.arms import ARMS, Order

    @contextmanager
    def opened(values: Mapping[str, Any]) -> Iterator[Call]:
        arm = ARMS[given["arm"]](Order(**values))
        try:
            yield arm.call
        finally:
            arm.close()

    given = json.loads(text)
    models = {name: partial(opened, values) for name, values in given["orders"].items()}
    return measured(models, given["conditions"])


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
