"""What lives in a broker now, and what all that lived has used: for the metrics and the admin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from loader_service.broker.event_stream import Told
from loader_service.broker.events import ModelClosed, ModelLost, WorkerEnded
from loader_service.broker.groups import Owner
from loader_service.broker.sessions import Sessions

FRESH_SECONDS = 1.0
"""A look serves whoever asks within that time: it reads some files for each worker."""


@dataclass(slots=True)
class Share:
    """What the sessions of an origin hold now."""

    sessions: int = 0
    models: int = 0
    parked: int = 0
    """Of those models."""
    loading: int = 0
    workers: set[int] = field(default_factory=set)
    """Processes of its models."""
    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    """Of living processes."""
    reported_calls: int = 0
    """Of living models; their workers' own word."""

    def add(self, other: Share) -> None:
        """Count another share, too."""
        self.sessions += other.sessions
        self.models += other.models
        self.parked += other.parked
        self.loading += other.loading
        self.workers |= other.workers
        self.memory_bytes += other.memory_bytes
        self.cpu_seconds += other.cpu_seconds
        self.reported_calls += other.reported_calls


Shares = dict[Owner, Share]


class Living:
    """Looks at the sessions, and sums up as a reader of events what has ended."""

    def __init__(self, sessions: Sessions, clock: Callable[[], float] = monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._shares: Shares = {}
        self._looked = float("-inf")
        self._cpu_of_dead: Counter[int] = Counter()
        self._calls_of_dead: Counter[int] = Counter()
        self._most: dict[tuple[str, int], float] = {}

    def count(self, told: Told) -> None:
        """Sum up what has ended."""
        event = told.event
        if isinstance(event, WorkerEnded):
            # In whole milliseconds: a counter of whole numbers loses nothing over years.
            self._cpu_of_dead[event.owner.principal] += round(event.cpu_seconds * 1000)
        elif isinstance(event, ModelClosed | ModelLost):
            self._calls_of_dead[event.owner.principal] += event.reported_calls

    def look(self) -> Shares:
        """Return what each origin holds, not older than a second."""
        if self._clock() - self._looked >= FRESH_SECONDS:
            self.look_anew()
        return self._shares

    def look_anew(self) -> None:
        """Look now: for somebody who will compare it with what else is told at this moment."""
        self._shares = self._count_living()
        self._looked = self._clock()

    def models_left(self) -> int:
        """Count models, and loads under way, as they are at this moment."""
        return sum(
            session.loading + sum(model.lost is None for model in session.models.values())
            for session in self._sessions.all()
        )

    def of_users(self) -> dict[int, Share]:
        """Return what each user's origins hold together."""
        users: dict[int, Share] = {}
        for owner, share in self.look().items():
            users.setdefault(owner.principal, Share()).add(share)
        return users

    def cpu_seconds(self) -> dict[int, float]:
        """Return the processor time of each user's workers, dead ones included; it only grows."""
        living = {user: share.cpu_seconds for user, share in self.of_users().items()}
        return {
            user: self._grown("cpu", user, self._cpu_of_dead[user] / 1000 + living.get(user, 0.0))
            for user in {*self._cpu_of_dead, *living}
        }

    def reported_calls(self) -> dict[int, int]:
        """Return how often each user's models computed, by their workers' own word."""
        living = {user: share.reported_calls for user, share in self.of_users().items()}
        return {
            user: int(self._grown("calls", user, self._calls_of_dead[user] + living.get(user, 0)))
            for user in {*self._calls_of_dead, *living}
        }

    def _grown(self, what: str, user: int, value: float) -> float:
        """Return the value, or the last one if that was more: a look may be older than a death."""
        value = max(value, self._most.get((what, user), 0.0))
        self._most[what, user] = value
        return value

    def _count_living(self) -> Shares:
        shares: Shares = {}
        for session in self._sessions.all():
            share = shares.setdefault(session.owner, Share())
            share.sessions += 1
            share.loading += session.loading
            for model in session.models.values():
                if model.lost is not None:
                    continue
                share.models += 1
                share.reported_calls += model.worker.calls
                if model.worker.parked:
                    share.parked += 1
                    continue
                if model.worker.pid not in share.workers:
                    share.workers.add(model.worker.pid)
                    usage = model.worker.usage()
                    share.memory_bytes += usage.memory_bytes
                    share.cpu_seconds += usage.cpu_seconds
        return shares
