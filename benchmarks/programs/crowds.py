"""Many callers at a time: `python -m benchmarks.programs.crowds JSON` in a fresh process.

The JSON object has `model` and `inputs` (paths), `arm`, `seconds` and `blocks`, and what the arm
needs: `crowds`, `clients`, `neighbours`. A block of a crowd holds one value, the nanoseconds that
passed for each call that was answered; a block of neighbours each call of the one that is watched.

| arm | what it does |
|---|---|
| `crowd in process` | so many threads, each with an interpreter of its own |
| `crowd` | as many threads, each with a model in the service |
| `neighbours in process`, `neighbours`, `neighbours relayed` | one watched caller beside others |
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, perf_counter_ns
from typing import Any

from benchmarks.programs.callers import Bench, Block, rate
from model_loader_cli.bench.blocks import Call, warm_up
from model_loader_cli.bench.machine import stolen_ticks


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


class Crowds(Bench):
    """Callers that grow in number."""

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


def crowd_in_process(bench: Crowds) -> dict[str, list[Block]]:
    """Threads with interpreters of their own; those of one interpreter take turns."""
    calls = bench.interpreters(max(bench.given["crowds"]))
    turn = threading.Lock()

    def shared() -> None:
        with turn:
            calls[0]()

    return bench.crowds(calls, shared)


def crowd(bench: Crowds) -> dict[str, list[Block]]:
    """Threads with models of their own."""
    with bench.connect() as connection:
        calls = bench.models(connection, max(bench.given["crowds"]))
        return bench.crowds(calls, calls[0])


def neighbours_in_process(bench: Crowds) -> dict[str, list[Block]]:
    """Threads of one process."""
    watched, *others = bench.interpreters(1 + max(bench.given["neighbours"]))
    return bench.neighbours(watched, others)


def neighbours(bench: Crowds, *, relay: bool = False) -> dict[str, list[Block]]:
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


def neighbours_relayed(bench: Crowds) -> dict[str, list[Block]]:
    """The same, through the broker."""
    return neighbours(bench, relay=True)


ARMS: dict[str, Callable[[Crowds], dict[str, list[Block]]]] = {
    "crowd in process": crowd_in_process,
    "crowd": crowd,
    "neighbours in process": neighbours_in_process,
    "neighbours": neighbours,
    "neighbours relayed": neighbours_relayed,
}


def main(text: str) -> dict[str, Any]:
    """Run one arm."""
    given = json.loads(text)
    return {"blocks": ARMS[given["arm"]](Crowds(given))}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
