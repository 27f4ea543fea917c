"""A healthy model of another origin in the same service, asked all the time while mutants die."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

import model_loader as ml
from loader_service.writer.warm_up import warm_up_model

ORIGIN = "bystander"
QUESTIONS = 16
PAUSE_SECONDS = 0.005
SHAPE = (1, 4, 4, 1)


class Bystander:
    """Asks its model the same questions in turn; counts answers that are not what they were."""

    def __init__(self, connection: ml.Connection, slack_seconds: float) -> None:
        """Load the model and learn its answers, before anything hostile is about."""
        self.asked = 0
        self.wrong: list[str] = []
        """What was wrong with an answer, or the error that came instead."""
        self.slowest = 0.0
        """Seconds of the longest call."""
        self.since = time.monotonic()
        """When the call under way began, or the last one ended."""
        self._model = ml.MLModelLoader(ml.create_context(connection=connection)).load(
            warm_up_model()
        )
        generator = np.random.default_rng(1)
        self._questions = [
            generator.standard_normal(SHAPE).astype(np.float32) for _ in range(QUESTIONS)
        ]
        self._answers = [self._ask(question) for question in self._questions]
        self._slack = slack_seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=ORIGIN, daemon=True)

    def start(self) -> None:
        """Ask from now on."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it goes on asking."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Ask no more, and close the model."""
        self._ending.set()
        self._thread.join(self._slack)
        self._model.close()

    def _ask(self, question: np.ndarray[Any, Any]) -> bytes:
        answer = self._model.compute(question)
        return bytes(answer.tobytes())

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            self.since = time.monotonic()
            number = (number + 1) % QUESTIONS
            try:
                right = self._ask(self._questions[number]) == self._answers[number]
            except Exception as error:
                self.wrong.append(repr(error))
                return
            self.asked += 1
            self.slowest = max(self.slowest, time.monotonic() - self.since)
            if not right:
                self.wrong.append(f"answer {self.asked} differs from the first one")
            time.sleep(PAUSE_SECONDS)
