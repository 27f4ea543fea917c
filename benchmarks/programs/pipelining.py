"""One client that keeps the model busy: `python -m benchmarks.programs.pipelining JSON`.

The JSON object has `model` and `inputs` (paths), `arm`, `seconds` and `blocks`, `threads` of one
computation, and `depth`. A block holds one value, the nanoseconds that passed for each call that
was answered.

| arm | what it does |
|---|---|
| `one after the other` | one interpreter in process, called in a loop |
| `one client` | one model in the service, called in a loop |
| `sequence` | one model in the service, the next inputs on their way (`compute_many`) |
| `pipelining` | one model in the service, `depth` calls under way by asyncio |
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic, monotonic_ns
from typing import Any

from benchmarks.programs.callers import Bench, Block, rate
from model_loader_cli.bench.blocks import warm_up
from model_loader_cli.bench.machine import stolen_ticks


def one_after_the_other(bench: Bench) -> dict[str, list[Block]]:
    """A loop in process."""
    (call,) = bench.interpreters(1)
    warm_up(call)
    return {"calls": bench.blocks(partial(rate, [call], bench.given["seconds"]))}


def one_client(bench: Bench) -> dict[str, list[Block]]:
    """A loop through the service."""
    with bench.connect() as connection:
        (call,) = bench.models(connection, 1)
        warm_up(call)
        return {"calls": bench.blocks(partial(rate, [call], bench.given["seconds"]))}


def sequence(bench: Bench) -> dict[str, list[Block]]:
    """A sequence through the service: the next inputs travel while the worker computes."""
    with bench.connect() as connection:
        (model,) = bench.loaded(connection, 1)
        warm_up(partial(model.compute, bench.x))

        def inputs(ends: float) -> Iterator[Any]:
            while monotonic() < ends:
                yield bench.x

        def block() -> Block:
            stolen, began = stolen_ticks(), monotonic_ns()
            count = sum(1 for _ in model.compute_many(inputs(monotonic() + bench.given["seconds"])))
            taken = monotonic_ns() - began
            return {"ns": [taken / count], "stolen": stolen_ticks() - stolen}

        return {"calls": bench.blocks(block)}


def pipelining(bench: Bench) -> dict[str, list[Block]]:
    """Several calls under way on one model, from one event loop."""
    return asyncio.run(_pipeline(bench))


async def _pipeline(bench: Bench) -> dict[str, list[Block]]:
    import model_loader as ml

    given, counts = bench.given, [0]

    async def keep_calling(model: Any, ends: float) -> None:
        while monotonic() < ends:
            await model.compute(bench.x)
            counts[0] += 1

    async with await ml.aio.embed(runtime="litert") as connection:
        context = await ml.aio.create_context(
            connection=connection, num_threads=bench.order.threads
        )
        model = await ml.aio.MLModelLoader(context).load(bench.data)
        blocks = []
        for number in range(given["blocks"] + 1):
            counts[0] = 0
            stolen, began = stolen_ticks(), monotonic_ns()
            ends = monotonic() + given["seconds"]
            async with asyncio.TaskGroup() as group:
                for _ in range(given["depth"]):
                    group.create_task(keep_calling(model, ends))
            block = {
                "ns": [(monotonic_ns() - began) / counts[0]],
                "stolen": stolen_ticks() - stolen,
            }
            if number:  # the first one is the warm-up
                blocks.append(block)
    return {"calls": blocks}


ARMS: dict[str, Callable[[Bench], dict[str, list[Block]]]] = {
    "one after the other": one_after_the_other,
    "one client": one_client,
    "sequence": sequence,
    "pipelining": pipelining,
}


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    given = json.loads(text)
    return {"blocks": ARMS[given["arm"]](Bench(given))}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
