"""Many calls at a time: `python -m benchmarks.programs.throughput JSON` in a fresh process.

The JSON object has `model` and `inputs` (paths), `arm`, `seconds` and `blocks`, and what the arm
needs: `threads` of one computation, `depth`, `crowds`, `clients`, `neighbours`. A block of a rate
holds one value, the nanoseconds that passed for each call that was answered.

| arm | what it does |
|---|---|
| `one after the other` | one interpreter in process, called in a loop |
| `one client` | one model in the service, called in a loop |
| `pipelining` | one model in the service, `depth` calls under way by asyncio |
| `crowd in process` | so many threads, each with an interpreter of its own |
| `crowd` | as many threads, each with a model in the service |
| `neighbours in process`, `neighbours`, `neighbours relayed` | one watched caller beside others |
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, monotonic_ns, perf_counter_ns
from typing import Any

from model_loader_cli.bench.arms import Order, open_interpreter
from model_loader_cli.bench.blocks import Call, warm_up
from model_loader_cli.bench.machine import stolen_ticks

Block = dict[str, Any]
MODELS = 32


def caller(interpreter: Any, x: Any) -> Call:
    """One call in process."""
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def call() -> object:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return call


def rate(calls: Sequence[Call], seconds: float) -> Block:
    """Let a thread make each of these calls again and again; the time for each call answered."""
    counts = [0] * len(calls)
    ends = monotonic() + seconds

    def loop(number: int) -> None:
        while monotonic() < ends:
            calls[number]()
            counts[number] += 1

    stolen, began = stolen_ticks(), monotonic_ns()
    if len(calls) == 1:
        loop(0)
    else:
        threads = [threading.Thread(target=loop, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    taken = monotonic_ns() - began
    return {"ns": [taken / sum(counts)], "stolen": stolen_ticks() - stolen, "counts": counts}


def beside(watched: Call, others: Sequence[Call], seconds: float) -> Block:
    """Time the watched calls, back to back, while each of the others goes on in a thread."""
    over = threading.Event()
    counts = [0] * len(others)

    def loop(number: int) -> None:
        while not over.is_set():
            others[number]()
            counts[number] += 1

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(len(others))]
    stolen = stolen_ticks()
    for thread in threads:
        thread.start()
    times = []
    ends = monotonic() + seconds
    while monotonic() < ends:
        began = perf_counter_ns()
        watched()
        times.append(perf_counter_ns() - began)
    over.set()
    for thread in threads:
        thread.join()
    return {"ns": times, "stolen": stolen_ticks() - stolen, "counts": counts}


class Bench:
    """One process's models, inputs and counts."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.order = Order(
            model=given["model"],
            inputs=given["inputs"],
            reply_bytes=0,
            threads=given.get("threads", 1),
        )
        self.data = Path(given["model"]).read_bytes()
        (self.x,) = self.order.arrays()

    def interpreters(self, count: int) -> list[Call]:
        """So many interpreters in process."""
        return [caller(open_interpreter(self.order, self.data), self.x) for _ in range(count)]

    def connect(self) -> Any:
        """A private service with room for all models."""
        import model_loader as ml

        limits = ml.Limits(models_per_origin=MODELS)
        return ml.embed(runtime="litert", limits=limits, origin="watched")

    def models(self, connection: Any, count: int) -> list[Call]:
        """So many models in the service."""
        import model_loader as ml

        context = ml.create_context(connection=connection, num_threads=self.order.threads)
        loader = ml.MLModelLoader(context)
        loaded = [loader.load(self.data) for _ in range(count)]
        return [partial(model.compute, self.x) for model in loaded]

    def blocks(self, make: Callable[[], Block]) -> list[Block]:
        """The blocks of one condition."""
        return [make() for _ in range(self.given["blocks"])]

    def crowds(self, calls: Sequence[Call], shared: Call) -> dict[str, list[Block]]:
        """More and more callers, each with a model of its own; then several callers of one."""
        for call in calls:
            warm_up(call)
        seconds = self.given["seconds"]
        result = {
            f"{count} models": self.blocks(partial(rate, calls[:count], seconds))
            for count in self.given["crowds"]
        }
        clients = self.given["clients"]
        result[f"{clients} clients of one model"] = self.blocks(
            partial(rate, [shared] * clients, seconds)
        )
        return result

    def neighbours(self, watched: Call, others: Sequence[Call]) -> dict[str, list[Block]]:
        """One watched caller beside more and more others."""
        for call in (watched, *others):
            warm_up(call)
        return {
            f"beside {count}": self.blocks(
                partial(beside, watched, others[:count], self.given["seconds"])
            )
            for count in self.given["neighbours"]
        }


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


def crowd_in_process(bench: Bench) -> dict[str, list[Block]]:
    """Threads with interpreters of their own; those of one interpreter take turns."""
    calls = bench.interpreters(max(bench.given["crowds"]))
    turn = threading.Lock()

    def shared() -> None:
        with turn:
            calls[0]()

    return bench.crowds(calls, shared)


def crowd(bench: Bench) -> dict[str, list[Block]]:
    """Threads with models of their own."""
    with bench.connect() as connection:
        calls = bench.models(connection, max(bench.given["crowds"]))
        return bench.crowds(calls, calls[0])


def neighbours_in_process(bench: Bench) -> dict[str, list[Block]]:
    """Threads of one process."""
    watched, *others = bench.interpreters(1 + max(bench.given["neighbours"]))
    return bench.neighbours(watched, others)


def neighbours(bench: Bench, *, relay: bool = False) -> dict[str, list[Block]]:
    """Two origins of one service."""
    import model_loader as ml

    with bench.connect() as connection:
        roads = [
            ml.connect(connection.address, origin=origin, relay=relay) for origin in ("one", "two")
        ]
        (watched,) = bench.models(roads[0], 1)
        others = bench.models(roads[1], max(bench.given["neighbours"]))
        result = bench.neighbours(watched, others)
        for road in roads:
            road.close()
    return result


def neighbours_relayed(bench: Bench) -> dict[str, list[Block]]:
    """The same, through the broker."""
    return neighbours(bench, relay=True)


ARMS: dict[str, Callable[[Bench], dict[str, list[Block]]]] = {
    "one after the other": one_after_the_other,
    "one client": one_client,
    "pipelining": pipelining,
    "crowd in process": crowd_in_process,
    "crowd": crowd,
    "neighbours in process": neighbours_in_process,
    "neighbours": neighbours,
    "neighbours relayed": neighbours_relayed,
}


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    given = json.loads(text)
    return {"blocks": ARMS[given["arm"]](Bench(given))}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
