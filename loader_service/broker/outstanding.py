"""Bounds on what is under way: loads in a minute, bytes of uploads, relayed calls."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from loader_service.broker.groups import Owner
from loader_service.broker.refusal import over_limit

MINUTE = 60.0


class LoadRate:
    """When each origin's loads of the last minute began."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun: dict[Owner, deque[float]] = {}

    def count(self, owner: Owner, most: int) -> None:
        """Count a load that begins; raises Refusal, and counts nothing, if there are too many."""
        now = self._clock()
        # Put last: the order is that of the latest loads.
        begun = self._begun[owner] = self._begun.pop(owner, deque())
        while begun and begun[0] <= now - MINUTE:
            begun.popleft()
        if len(begun) + 1 > most:
            wait = begun[len(begun) - most] + MINUTE - now
            raise over_limit(
                "loads_per_minute",
                len(begun) + 1,
                most,
                f"too many loads in a minute, the next one may begin in {wait:.1f} s",
            )
        begun.append(now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop the origins that have been quiet; the first in order are the first to be so."""
        for owner in list(self._begun):
            if self._begun[owner][-1] > now - MINUTE:
                return
            del self._begun[owner]


class Outstanding:
    """How much of one thing each principal has under way."""

    def __init__(self, limit: str, what: str) -> None:
        """Name the limit, and say what is too much of what when it is reached."""
        self._limit = limit
        self._what = what
        self._held: Counter[int] = Counter()

    def of(self, principal: int) -> int:
        """Return what the principal has under way."""
        return self._held[principal]

    def take(self, principal: int, amount: int, most: int) -> None:
        """Count so much more; raises Refusal, and counts nothing, if that is too much."""
        held = self._held[principal] + amount
        if held > most:
            raise over_limit(self._limit, held, most, self._what)
        self._held[principal] = held

    def give_back(self, principal: int, amount: int) -> None:
        """Count so much less."""
        self._held[principal] -= amount
        if not self._held[principal]:
            del self._held[principal]

    @contextmanager
    def held(self, principal: int, amount: int, most: int) -> Iterator[Callable[[int], None]]:
        """Count so much while the block runs; raises Refusal if it is too much.

        Gives a function that says how much it has become; that raises Refusal too.
        """
        self.take(principal, amount, most)

        def grow_to(total: int) -> None:
            nonlocal amount
            if total > amount:
                self.take(principal, total - amount, most)
                amount = total

        try:
            yield grow_to
        finally:
            self.give_back(principal, amount)
