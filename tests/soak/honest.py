"""An honest program: several models, every answer compared byte for byte with one in process.

    python -m tests.soak.honest DIRECTORY ORIGIN FACE ROAD SECONDS SEED

Prints one JSON object at its end. It exits with status 1 if it met what it must never meet.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import model_loader as ml
from loader_service.runtime.engine import LoadedModel
from loader_service.runtime.runtimes import find_runtime
from loader_service.writer import mobilenet, small, stateful

Array = np.ndarray[Any, Any]
BOUND_SECONDS = 10.0
"""No call of an honest model may take longer, however busy the service is."""


def in_process(data: bytes) -> LoadedModel:
    """The same model on the same runtime in this process."""
    return find_runtime("auto").load(data, threads=1, memory_bytes=None)


def answer_of(model: LoadedModel, x: Array) -> bytes:
    """The bytes of its answer, in process."""
    (place,) = model.prepare_inputs(0, [x.shape])
    assert place is not None
    place[:] = x.tobytes()
    model.invoke(0)
    (output,) = model.outputs(0)
    return bytes(output.data)


MODELS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "add": (small.add, (1,)),
    "batch": (small.dynamic_batch, (3, 4)),
    "state": (stateful.running_sum, (1, 1)),
    "mobilenet": (mobilenet.mobilenet_v2, (1, 224, 224, 3)),
}


async def done(result: Any) -> Any:
    """Wait for what the asynchronous face gives."""
    return await result if inspect.isawaitable(result) else result


class Honest:
    """Loads models, calls them many times, closes them, and begins again."""

    def __init__(self, directory: str, origin: str, face: str, road: str, seed: int) -> None:
        self._face: Any = ml.aio if face == "aio" else ml
        self._directory, self._origin, self._relay = directory, origin, road == "relayed"
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.longest = 0.0

    async def run(self, seconds: float) -> None:
        """Go on for so long."""
        ends = time.monotonic() + seconds
        connection = await done(
            self._face.connect(self._directory, origin=self._origin, relay=self._relay)
        )
        context = await done(self._face.create_context(connection=connection))
        try:
            while time.monotonic() < ends:
                await self._round(self._face.MLModelLoader(context))
        finally:
            await done(connection.close())

    async def _round(self, loader: Any) -> None:
        name = self._random.choice(list(MODELS))
        make, shape = MODELS[name]
        data = make()
        try:
            began = time.monotonic()
            model = await done(loader.load(data))
            self._took(time.monotonic() - began)
            self.counts["loads"] += 1
            plain = in_process(data)
            for _ in range(5 if name == "mobilenet" else 100):
                numbers = np.random.default_rng(self._random.randrange(1 << 30))
                x = numbers.standard_normal(shape).astype(np.float32)
                began = time.monotonic()
                answer = await done(model.compute(x))
                self._took(time.monotonic() - began)
                self.counts["calls"] += 1
                if answer.tobytes() != answer_of(plain, x):
                    self.counts["wrong"] += 1
                    self.faults.append(f"wrong answer of {name}")
            await done(model.close())
        except Exception as error:
            self.counts["errors"] += 1
            self.faults.append(f"{name}: {type(error).__name__}: {error}"[:300])

    def _took(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        if seconds > BOUND_SECONDS:
            self.faults.append(f"something took {seconds:.1f} s")


def main(arguments: list[str]) -> int:
    """Be honest for so many seconds."""
    directory, origin, face, road, seconds, seed = arguments
    program = Honest(directory, origin, face, road, int(seed))
    asyncio.run(program.run(float(seconds)))
    print(
        json.dumps(
            {
                **program.counts,
                "longest_seconds": round(program.longest, 3),
                "faults": program.faults[:20],
            }
        )
    )
    return 1 if program.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
