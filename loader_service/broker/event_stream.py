"""The broker's one stream of events: told once, read by the log, the metrics and followers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter

from loader_service.broker.events import Event
from loader_service.broker.request_id import request_id

log = logging.getLogger("model_loader.events")

KEPT = 1000
"""Events that matter (INFO and above) that one who comes later can still read."""
KEPT_OF_STRANGERS = 100
"""As many of those that strangers cause: they push out none of the others."""
AHEAD = 1000
"""Events that a follower may be behind; the oldest of more are left out, and counted."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event with when it happened, and in which call."""

    number: int
    """One more than the one before."""
    unix_seconds: float
    request: str
    event: Event


Reader = Callable[[Told], None]


class Follower:
    """One who follows the events, at a pace of their own."""

    def __init__(self, level: int) -> None:
        """Follow events that matter at least so much."""
        self.level = level
        self.left_out = 0
        """Events that were not told because the follower was too far behind."""
        self._waiting: deque[Told] = deque()
        self._more = asyncio.Event()

    def tell(self, told: Told) -> None:
        """Take an event in."""
        if told.event.level < self.level:
            return
        if len(self._waiting) >= AHEAD:
            self._waiting.popleft()
            self.left_out += 1
        self._waiting.append(told)
        self._more.set()

    async def next(self) -> Told:
        """Wait for the next event."""
        while not self._waiting:
            self._more.clear()
            await self._more.wait()
        return self._waiting.popleft()


class EventStream:
    """Tells each event to every reader, at once and in order."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._readers: list[Reader] = []
        self._followers: set[Follower] = set()
        self._kept: deque[Told] = deque(maxlen=KEPT)
        self._kept_of_strangers: deque[Told] = deque(maxlen=KEPT_OF_STRANGERS)
        self._left_out = 0

    def add_reader(self, read: Reader) -> None:
        """Have every event told to a function, which must be quick and may not await."""
        self._readers.append(read)

    def tell(self, event: Event) -> None:
        """Tell an event; what a reader does wrong harms neither the teller nor other readers."""
        told = Told(next(self._numbers), self._clock(), request_id.get(), event)
        if event.level >= logging.INFO:
            kept = self._kept_of_strangers if event.by_strangers else self._kept
            kept.append(told)
        for read in self._readers:
            try:
                read(told)
            except Exception:
                log.exception("a reader of events failed")
        for follower in self._followers:
            follower.tell(told)

    @property
    def left_out(self) -> int:
        """How many events all followers together were not told, being too far behind."""
        return self._left_out + sum(follower.left_out for follower in self._followers)

    def kept(self) -> list[Told]:
        """Return the latest events that matter, oldest first."""
        return list(heapq.merge(self._kept, self._kept_of_strangers, key=attrgetter("number")))

    @contextmanager
    def followed(self, level: int = logging.INFO) -> Iterator[Follower]:
        """Follow the events while the block runs."""
        follower = Follower(level)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._left_out += follower.left_out
