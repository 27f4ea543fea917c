"""Letting the service run dry: no more loads, and an end when the models have gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import DrainBegan, DrainEnded
from loader_service.broker.readiness import Readiness
from loader_service.broker.refusal import refuse
from model_loader_wire.causes import Cause

LOOK_SECONDS = 0.1
"""Between two looks whether models are left."""


class Draining:
    """Whether the service is draining, and until when."""

    def __init__(
        self, readiness: Readiness, events: EventStream, models_left: Callable[[], int]
    ) -> None:
        self.over = asyncio.Event()
        """Set when a drain has come to its end: the service is to end."""
        self._readiness = readiness
        self._events = events
        self._models_left = models_left
        self._running: asyncio.Task[None] | None = None
        self._ends = 0.0

    @property
    def active(self) -> bool:
        """Whether no more loads are let in."""
        return self._readiness.draining

    def check(self) -> None:
        """Raise Refusal for a load that comes now."""
        if self.active:
            raise refuse(Cause.UNAVAILABLE, "the service is draining and takes no more models")

    def begin(self, by: str, seconds: float) -> None:
        """Let in no more loads; end the service when no model is left, or after so long.

        While a drain is under way this gives it another end.
        """
        self._ends = monotonic() + seconds
        self._readiness.drain(True)
        self._events.tell(DrainBegan(by=by, seconds=seconds))
        if self._running is None:
            self._running = asyncio.create_task(self._run(by))

    def cancel(self, by: str) -> None:
        """Go on as before; models that have gone do not come back."""
        if self._running is None or self.over.is_set():
            return
        self._running.cancel()
        self._running = None
        self._readiness.drain(False)
        self._events.tell(DrainEnded(by=by, models_left=self._models_left()))

    def stop(self) -> None:
        """Watch no more: the service ends anyhow."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self, by: str) -> None:
        while self._models_left() and monotonic() < self._ends:
            await asyncio.sleep(LOOK_SECONDS)
        self._events.tell(DrainEnded(by=by, models_left=self._models_left()))
        self.over.set()
