"""Refusing a model for a while whose workers die again and again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.broker.seat import Place
from loader_service.broker.settings import Settings
from model_loader_wire.causes import Cause, Failure

COUNTED = frozenset(
    {
        Cause.CRASHED,
        Cause.POLICY_VIOLATION,
        Cause.PROTOCOL_VIOLATION,
        Cause.OUT_OF_MEMORY,
        Cause.CPU_TIME,
    }
)
"""Ends that are the model's own doing. A deadline is not among them, the service's neither: a
caller may lower it, a busy machine may miss it, and what ran too long has cost no more than the
time that it was given."""
MODELS_KEPT = 256
"""Models of one principal whose deaths are remembered; the one that died longest ago gives way."""


@dataclass(slots=True)
class _Deaths:
    times: deque[float]
    last: Failure
    refused_until: float = field(default=0.0)


Key = tuple[str, bytes]


class CrashGuard:
    """Counts the deaths of each model of each origin; the numbers are settings."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._of: dict[int, OrderedDict[Key, _Deaths]] = {}

    def check(self, owner: Owner, sha256: bytes) -> None:
        """Raise Refusal while the model is refused; after that, its deaths are forgotten."""
        models = self._of.get(owner.principal, OrderedDict())
        deaths = models.get((owner.origin, sha256))
        if deaths is None or not deaths.refused_until:
            return
        left = deaths.refused_until - self._clock()
        if left <= 0:
            del models[owner.origin, sha256]
            return
        count, most = len(deaths.times), self._settings.crash_loop_deaths
        message = (
            f"the workers of this model died {count} times within "
            f"{self._settings.crash_loop_seconds:g} s, the last one because "
            f"{deaths.last.message}; it is refused for another {left:.1f} s"
        )
        raise Refusal(Failure(Cause.CRASH_LOOP, message, "crash_loop_deaths", count, most))

    def watch(self, owner: Owner, sha256: bytes, worker: Place) -> None:
        """Count the worker's end, if it dies by the model's doing.

        One that held several models counts for the one that was being loaded, else for all of them.
        """

        def ended(worker: Place) -> None:
            lost = worker.lost
            if worker.suspect and lost is not None and lost.cause in COUNTED:
                self.count(owner, sha256, lost)

        worker.when_ended(ended)

    def count(self, owner: Owner, sha256: bytes, lost: Failure) -> None:
        """Count one death."""
        now = self._clock()
        models = self._of.setdefault(owner.principal, OrderedDict())
        deaths = models.setdefault((owner.origin, sha256), _Deaths(deque(), lost))
        models.move_to_end((owner.origin, sha256))
        deaths.last = lost
        deaths.times.append(now)
        while deaths.times[0] < now - self._settings.crash_loop_seconds:
            deaths.times.popleft()
        if len(deaths.times) >= self._settings.crash_loop_deaths:
            deaths.refused_until = now + self._settings.crash_loop_refusal_seconds
        if len(models) > MODELS_KEPT:
            models.popitem(last=False)
