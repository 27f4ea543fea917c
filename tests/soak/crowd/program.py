"""One program of the crowd: four models at a time, and every answer compared with the right one."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import model_loader as ml
from loader_service.writer import small, stateful
from tests.shared_models import REPOSITORY
from tests.soak.crowd.record import Life, Record
from tests.soak.honest import answer_of, in_process

Array = np.ndarray[Any, Any]
BOUND_SECONDS = 60.0
"""No call and no load may take longer, however many there are."""
CALLS = 20
"""Of one model in a row."""
PAUSE_SECONDS = 0.02


def _digits() -> bytes:
    return (REPOSITORY / "examples" / "digits" / "digits.tflite").read_bytes()


MODELS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "add": (small.add, (1,)),
    "batch": (small.dynamic_batch, (3, 4)),
    "sum": (stateful.counter, (1,)),
    "digits": (_digits, (1, 8, 8, 1)),
}
INPUTS = 32
"""Different ones of each model: small whole numbers, whose sums are exact."""


@dataclass
class Known:
    """A model's bytes, its inputs, and its answers in process."""

    data: bytes
    inputs: list[Array]
    answers: list[bytes]
    """Without those of `sum`, whose answer depends on the calls before."""


def known() -> dict[str, Known]:
    """Ask each model in this process, once for all programs."""
    result = {}
    for name, (make, shape) in MODELS.items():
        data = make()
        chance = np.random.default_rng(7)
        inputs = [chance.integers(0, 16, shape).astype(np.float32) for _ in range(INPUTS)]
        plain = in_process(data) if name != "sum" else None
        answers = [] if plain is None else [answer_of(plain, x) for x in inputs]
        result[name] = Known(data, inputs, answers)
    return result


@dataclass
class Held:
    """A model that a program holds."""

    model: ml.MLModel
    sum: Array = field(default_factory=lambda: np.zeros(1, np.float32))


class Program:
    """Loads, calls, closes; loads again what it is told that it lost."""

    def __init__(self, number: int, record: Record, models: dict[str, Known]) -> None:
        self._number = number
        self._record = record
        self._life: Life = record.lives[number]
        self._known = models
        self._random = random.Random(number)
        self._held: dict[str, Held] = {}

    def live(self, directory: str, *, relayed: bool) -> None:
        """Go on until it is time to end."""
        connection = ml.connect(directory, origin=f"program-{self._number}", relay=relayed)
        with connection, ml.create_context(connection=connection) as context:
            self._life["connected"], self._life["relayed"] = 1, relayed
            loader = ml.MLModelLoader(context)
            for _ in range(self._random.randint(50, 1000)):
                if self._record.stopping:
                    break
                for name in MODELS:
                    if name not in self._held:
                        self._load(loader, name)
                self._call(self._random.choice(list(MODELS)))
                if self._random.random() < 0.02:
                    self._held.pop(self._random.choice(list(self._held))).model.close()
                    self._life["closes"] += 1
                time.sleep(self._random.uniform(0, 2 * PAUSE_SECONDS))
            self._life["closes"] += len(self._held)
        self._life["ended"] = 1

    def _load(self, loader: ml.MLModelLoader, name: str) -> None:
        self._life["loads_begun"] += 1
        began = time.monotonic()
        self._held[name] = Held(loader.load(self._known[name].data))
        self._took(f"the load of {name}", began)
        self._life["loads"] += 1

    def _call(self, name: str) -> None:
        held = self._held.get(name)
        for _ in range(CALLS):
            if held is None or self._record.stopping:
                return
            number = self._random.randrange(INPUTS)
            x = self._known[name].inputs[number]
            self._life["calls_begun"] += 1
            began = time.monotonic()
            try:
                answer = held.model.compute(x)
            except ml.ModelLoaderError as error:
                if error.cause != "killed" or held.model.lost is None:
                    raise
                if not error.model_lost:
                    self.fault(f"{error!r} of {held.model!r} does not say that it is lost")
                self._life["losses"] += 1
                del self._held[name]
                return
            self._took(f"a call of {name}", began)
            self._life["calls"] += 1
            if name == "sum":
                held.sum += x
                right = held.sum.tobytes()
            else:
                right = self._known[name].answers[number]
            if np.asarray(answer).tobytes() != right:
                self._life["wrong"] += 1
                self.fault(f"a wrong answer of {name}")

    def _took(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        if seconds > BOUND_SECONDS:
            self.fault(f"{what} took {seconds:.1f} s")

    def fault(self, text: str) -> None:
        """Note what should not have happened."""
        self._life["faults"] += 1
        print(f"program {self._number}: {text}"[:500], file=sys.stderr, flush=True)


def be(program: Program, uid: int, directory: str, *, relayed: bool) -> int:
    """Be that program as that user; returns the exit status."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    try:
        program.live(directory, relayed=relayed)
    except Exception as error:
        program.fault(f"{type(error).__name__}: {error}")
        return 1
    return 0
