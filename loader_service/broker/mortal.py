"""What ends once, for a reason that stays on record, and who is told of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from model_loader_wire.causes import Failure


class Mortal(ABC):
    """A worker, or one model of several in a worker, living or dead."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._on_end: list[Callable[[Self], None]] = []

    @property
    def lost(self) -> Failure | None:
        """Why it ended, or None while it lives."""
        return self._ended.result() if self._ended.done() else None

    def when_ended(self, call: Callable[[Self], None]) -> None:
        """Call back once it is dead, in the order of the asking; at once if it is."""
        if self._ended.done():
            call(self)
        else:
            self._on_end.append(call)

    async def wait(self, seconds: float) -> Failure | None:
        """Wait for the end so long; returns why, or None for what lives on."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self.lost

    async def end(self, reason: Failure) -> Failure:
        """End it and wait until it is dead; returns the reason on record."""
        self.kill(reason)
        return await self.verdict()

    @abstractmethod
    def kill(self, reason: Failure) -> None:
        """End it; the first reason stays on record."""

    @abstractmethod
    async def verdict(self) -> Failure:
        """Wait for an end that is coming; returns why."""

    def over(self: Self, lost: Failure) -> None:
        """Note the end, the first time, and tell who waits for it."""
        if self._ended.done():
            return
        self._ended.set_result(lost)
        for call in self._on_end:
            call(self)
        self._on_end.clear()
