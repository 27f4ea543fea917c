"""A healthy model of another session, which must notice nothing of what is done to its service."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Self

import numpy as np

from loader_service.writer import small
from tests.fuzz.campaign import Table
from tests.support.raw_client import RawSession, Service, exchange_over
from tests.support.usage import resident_bytes

SETTLE_SECONDS = 20.0


class Healthy:
    """A service of one's own, and a model of it that goes on answering."""

    def __init__(
        self,
        table: Table,
        limits: dict[str, float] | None = None,
        service: Service | None = None,
        **settings: Any,
    ) -> None:
        """Start both; the limits are the caller's, but for the number of loads.

        Or take over a service that was started with others.
        """
        # Models that were loaded are kept on purpose, and each is a descriptor.
        settings.setdefault("kept_model_bytes", 0)
        if service is None:
            service = Service({"loads_per_minute": 10**9, **(limits or {})}, **settings)
        self.service = service
        self._table = table
        self._session = RawSession(self.service.directory, "healthy")
        reply = self._session.load(small.add())
        self.pid = reply.isolation.worker_pid
        self._channel = self._session.channel(reply.model_id)
        self._asked = 0
        self._descriptors: Counter[str] = Counter()
        self._memory = 0

    def begin(self) -> None:
        """Count the broker's descriptors; what is made from here on must go."""
        self._descriptors = self._open()
        self._memory = resident_bytes(self.service.pid)

    def _open(self) -> Counter[str]:
        """The broker's descriptors, by their kind."""
        folder = f"/proc/{self.service.pid}/fd"
        kinds: Counter[str] = Counter()
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                kinds[re.sub(r"\d+", "", os.readlink(f"{folder}/{name}"))] += 1
        return kinds

    def look(self, when: str) -> None:
        """Ask the model; a wrong answer is a finding."""
        self._asked += 1
        x = np.array([self._asked % 1000], np.float32)
        answer = exchange_over(self._channel, [x])
        if answer.failure is not None or np.frombuffer(answer.tensors[0], np.float32) != x + 1:
            self._table.find(f"{when}: the healthy model answered {answer.failure}")

    def settle(self, workers: list[int]) -> None:
        """Wait until only these workers are left, beside its own, and no descriptor more."""
        self.look("at the end")
        expected = sorted([self.pid, *workers])
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            left, more = sorted(self.service.workers()), self._open() - self._descriptors
            if left == expected and not more:
                break
            time.sleep(0.05)
        else:
            self._table.find(
                f"workers {left} where {expected} were due; more descriptors: {dict(more)}, "
                f"before {dict(self._descriptors)}"
            )
        self._table.facts["answers of the healthy model"] = self._asked
        log = self.service.log()
        for sign in ("Traceback", "never retrieved", "Unexpected"):
            if sign in log:
                place = log.index(sign)
                self._table.find(f"the log says: {log[max(0, place - 200) : place + 1500]}")

    def weigh(self, most: int) -> None:
        """See how much memory the broker has beyond what it had; above `most` is a finding."""
        grown = max(0, resident_bytes(self.service.pid) - self._memory)
        self._table.facts["KiB that the broker grew"] = grown >> 10
        if grown > most:
            self._table.find(f"the broker has {grown} bytes more than before")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()
        self._session.close()
        try:
            self.service.__exit__(None, None, None)
        except AssertionError as fault:
            self._table.find(f"the service did not end well: {str(fault)[-1500:]}")
