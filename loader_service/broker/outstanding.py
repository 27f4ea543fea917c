"""Bounds on what is under way, of each origin, of each principal and in all."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from loader_service.broker.groups import Owner
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import over_limit
from model_loader_wire.limits import Limits

MINUTE = 60.0


class Bounded(Protocol):
    """One limit of one level; a maximum of None limits nothing."""

    @property
    def limit(self) -> str:
        """Its name."""
        ...

    @property
    def maximum(self) -> int | None:
        """What it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit that stays as it is."""

    limit: str
    maximum: int | None


@dataclass(frozen=True, slots=True)
class LiveBound:
    """A limit as the settings in force have it, which can change while the service runs."""

    principals: Principals
    limit: str

    @property
    def maximum(self) -> int | None:
        """What it is now."""
        value: int | None = getattr(self.principals.settings, self.limit)
        return value


NONE = Bound("", None)


class LoadRate:
    """When the loads of the last minute began."""

    def __init__(
        self,
        principal: Bounded = NONE,
        total: Bounded = NONE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._principal = principal
        self._total = total
        self._clock = clock
        self._begun: dict[Hashable, deque[float]] = {}

    def count(self, owner: Owner, most: int) -> None:
        """Count a load that begins; raises Refusal, and counts nothing, if there are too many.

        `most` is what its origin may begin in a minute.
        """
        now = self._clock()
        self._forget(now)
        levels: list[tuple[Hashable, Bounded]] = [
            (owner, Bound("loads_per_minute", most)),
            (owner.principal, self._principal),
            (None, self._total),
        ]
        for key, bound in levels:
            self._check(self._begun.get(key, deque()), bound, now)
        for key, bound in levels:
            if bound.maximum is not None:
                # Put last: the order is that of the latest loads.
                begun = self._begun[key] = self._begun.pop(key, deque())
                begun.append(now)

    def _check(self, begun: deque[float], bound: Bounded, now: float) -> None:
        while begun and begun[0] <= now - MINUTE:
            begun.popleft()
        count, most = len(begun) + 1, bound.maximum
        if most is not None and count > most:
            wait = begun[len(begun) - most] + MINUTE - now
            raise over_limit(
                bound.limit,
                count,
                most,
                f"too many loads in a minute, the next one may begin in {wait:.1f} s",
            )

    def _forget(self, now: float) -> None:
        """Drop those that have been quiet; the first in order are the first to be so."""
        for key in list(self._begun):
            if self._begun[key] and self._begun[key][-1] > now - MINUTE:
                return
            del self._begun[key]


class Outstanding:
    """How much of one thing is under way."""

    def __init__(
        self, limit: str, what: str, origin: Bounded = NONE, total: Bounded = NONE
    ) -> None:
        """Name the principal's limit, and say what is too much of what when one is reached."""
        self._limit = limit
        self._what = what
        self._origin = origin
        self._total = total
        self._held: Counter[Hashable] = Counter()

    def of(self, principal: int) -> int:
        """Return what the principal has under way."""
        return self._held[principal]

    def take(self, owner: Owner, amount: int, most: int) -> None:
        """Count so much more; raises Refusal, and counts nothing, if that is too much.

        `most` is what the principal may have.
        """
        levels = self._levels(owner, most)
        for key, bound in levels:
            held = self._held[key] + amount
            if bound.maximum is not None and held > bound.maximum:
                raise over_limit(bound.limit, held, bound.maximum, self._what)
        for key, _ in levels:
            self._held[key] += amount

    def give_back(self, owner: Owner, amount: int) -> None:
        """Count so much less."""
        for key, _ in self._levels(owner, 0):
            self._held[key] -= amount
            if not self._held[key]:
                del self._held[key]

    def _levels(self, owner: Owner, most: int) -> Sequence[tuple[Hashable, Bounded]]:
        return (
            (owner, self._origin),
            (owner.principal, Bound(self._limit, most)),
            (None, self._total),
        )

    @contextmanager
    def held(self, owner: Owner, amount: int, most: int) -> Iterator[Callable[[int], None]]:
        """Count so much while the block runs; raises Refusal if it is too much.

        Gives a function that says how much it has become; that raises Refusal too.
        """
        self.take(owner, amount, most)

        def grow_to(total: int) -> None:
            nonlocal amount
            if total > amount:
                self.take(owner, total - amount, most)
                amount = total

        try:
            yield grow_to
        finally:
            self.give_back(owner, amount)


class InFlight:
    """The relayed calls of all principals that are under way, and their inputs."""

    def __init__(self, principals: Principals) -> None:
        self._calls = Outstanding(
            "calls_in_flight",
            "too many relayed calls at a time",
            *bounds(principals, "calls_in_flight"),
        )
        self._inputs = Outstanding(
            "bytes_in_flight",
            "too many bytes of relayed calls at a time",
            *bounds(principals, "bytes_in_flight"),
        )

    @contextmanager
    def held(self, owner: Owner, size: int, limits: Limits) -> Iterator[None]:
        """Count a call with so many bytes of inputs; raises Refusal if that is too much."""
        with (
            self._calls.held(owner, 1, limits.calls_in_flight or 0),
            self._inputs.held(owner, size, limits.bytes_in_flight or 0),
        ):
            yield


def bounds(principals: Principals, name: str) -> tuple[LiveBound, LiveBound]:
    """Return the limit `name` of an origin and in all."""
    return LiveBound(principals, f"origin_{name}"), LiveBound(principals, f"total_{name}")
