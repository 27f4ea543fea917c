"""A program that outlives its service: ``python -m tests.integration.returning_caller ADDRESS FACE
ROAD``, where FACE is "blocking" or "asynchronous" and ROAD "direct" or "relayed".

It computes without a pause on models that it holds, one of which keeps state, and holds each answer
against what it must be. For each line of its input it says that every model has answered since, or
was loaded anew by its own hand; at the end of the input it says in JSON what became of its calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

import model_loader as ml
from loader_service.writer import small, stateful

PLAIN = 3
"""Models without state; each adds another number."""


@dataclass
class Counts:
    """What became of the calls on one model."""

    calls: int = 0
    answers: int = 0
    wrong: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    """Errors, by name."""
    loads: int = 1


class Held:
    """A model, what its next answer must be, and its counts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.keeps_state = number == PLAIN
        self.content = stateful.counter() if self.keeps_state else small.add(number + 1)
        self.counts = Counts()
        self.total = 0.0

    def next_input(self) -> np.ndarray[Any, Any]:
        """An input that no other call has."""
        self.counts.calls += 1
        return np.array([self.counts.calls % 1000], np.float32)

    def check(self, given: Any, answer: Any) -> None:
        """Count an answer."""
        self.total += float(given[0])
        must = self.total if self.keeps_state else float(given[0]) + self.number + 1
        self.counts.answers += 1
        self.counts.wrong += answer.tolist() != [must]

    def failed(self, error: ml.ModelLoaderError) -> bool:
        """Count an error; gives whether the model must be loaded anew."""
        name = type(error).__name__
        self.counts.lost[name] = self.counts.lost.get(name, 0) + 1
        return isinstance(error, ml.InvalidStateError)

    def anew(self) -> None:
        """Begin with a model that was loaded anew."""
        self.counts.loads += 1
        self.total = 0.0


def run_blocking(address: str, relay: bool) -> list[Held]:
    """Compute in a thread for each model."""
    over = threading.Event()
    with (
        ml.connect(address, relay=relay, reconnect=True) as connection,
        ml.create_context(connection=connection) as context,
    ):
        loader = ml.MLModelLoader(context)
        all_held = [Held(number) for number in range(PLAIN + 1)]

        def load(held: Held) -> ml.MLModel:
            while True:
                try:
                    return loader.load(held.content)
                except ml.NetworkError:  # a machine under load may take longer than it waits
                    continue

        def work(held: Held) -> None:
            model = load(held)
            while not over.is_set():
                given = held.next_input()
                try:
                    held.check(given, model.compute(given))
                except ml.ModelLoaderError as error:
                    if held.failed(error):
                        model = load(held)
                        held.anew()

        threads = [threading.Thread(target=work, args=(held,)) for held in all_held]
        for thread in threads:
            thread.start()
        for _ in sys.stdin:
            before = [held.counts.answers for held in all_held]
            while any(
                held.counts.answers == count for held, count in zip(all_held, before, strict=True)
            ):
                time.sleep(0.01)
            print("answered", flush=True)
        over.set()
        for thread in threads:
            thread.join()
    return all_held


async def run_asynchronously(address: str, relay: bool) -> list[Held]:
    """Compute in a task for each model."""
    over = asyncio.Event()
    async with (
        await ml.aio.connect(address, relay=relay, reconnect=True) as connection,
        await ml.aio.create_context(connection=connection) as context,
    ):
        loader = ml.aio.MLModelLoader(context)
        all_held = [Held(number) for number in range(PLAIN + 1)]

        async def load(held: Held) -> ml.aio.MLModel:
            while True:
                try:
                    return await loader.load(held.content)
                except ml.NetworkError:
                    continue

        async def work(held: Held) -> None:
            model = await load(held)
            while not over.is_set():
                given = held.next_input()
                try:
                    held.check(given, await model.compute(given))
                except ml.ModelLoaderError as error:
                    if held.failed(error):
                        model = await load(held)
                        held.anew()

        async with asyncio.TaskGroup() as tasks:
            for held in all_held:
                tasks.create_task(work(held))
            read: Callable[[], Awaitable[str]] = lambda: asyncio.to_thread(sys.stdin.readline)  # noqa: E731
            while await read():
                before = [held.counts.answers for held in all_held]
                while any(
                    held.counts.answers == count
                    for held, count in zip(all_held, before, strict=True)
                ):
                    await asyncio.sleep(0.01)
                print("answered", flush=True)
            over.set()
    return all_held


def main(address: str, face: str, road: str) -> None:
    """Run until the input ends."""
    relay = road == "relayed"
    if face == "blocking":
        all_held = run_blocking(address, relay)
    else:
        all_held = asyncio.run(run_asynchronously(address, relay))
    print(json.dumps([asdict(held.counts) for held in all_held]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
