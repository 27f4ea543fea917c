"""Callers that go on for as long as a block lasts, in process and through the service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

from model_loader_cli.bench.arms import Order, open_interpreter
from model_loader_cli.bench.blocks import Call
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
        """So many models in the service, as calls."""
        return [partial(model.compute, self.x) for model in self.loaded(connection, count)]

    def loaded(self, connection: Any, count: int) -> list[Any]:
        """So many models in the service."""
        import model_loader as ml

        context = ml.create_context(connection=connection, num_threads=self.order.threads)
        loader = ml.MLModelLoader(context)
        return [loader.load(self.data) for _ in range(count)]

    def blocks(self, make: Callable[[], Block]) -> list[Block]:
        """The blocks of one condition."""
        return [make() for _ in range(self.given["blocks"])]
