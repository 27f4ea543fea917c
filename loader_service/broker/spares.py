"""A process in waiting for each origin that loads: the next load need not wait for its birth.

It is made after a load, waits in its cgroup as its own user and in its own namespaces, and has
seen no model. Another origin's load, or one with other limits, never gets it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from loader_service.broker.births import Births, Kind
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure

UNUSED = Failure(Cause.CANCELLED, "nobody needed this process")


@dataclass(slots=True)
class _Spare:
    kind: Kind
    birth: asyncio.Task[Worker]
    expiry: asyncio.TimerHandle


class Spares:
    """At most one process for each origin."""

    def __init__(self, births: Births, seconds: float) -> None:
        """Let a process wait for so many seconds; none are made if that is 0."""
        self._births = births
        self._seconds = seconds
        self._of: dict[Owner, _Spare] = {}

    def prepare(self, kind: Kind) -> None:
        """Make a process for the owner's next load, unless one waits; one of another kind goes."""
        if not self._seconds:
            return
        spare = self._of.get(kind.owner)
        if spare is not None and spare.kind == kind and not _is_lost(spare.birth):
            return
        self.drop(kind.owner)
        try:
            birth = self._births.begin(kind)
        except Refusal:
            return
        birth.add_done_callback(_retrieve)
        expiry = asyncio.get_running_loop().call_later(self._seconds, self.drop, kind.owner)
        self._of[kind.owner] = _Spare(kind, birth, expiry)

    def take(self, kind: Kind) -> asyncio.Task[Worker] | None:
        """Hand over the birth of a process of that kind, over or not; None if there is none."""
        spare = self._of.get(kind.owner)
        if spare is None or spare.kind != kind:
            return None
        del self._of[kind.owner]
        spare.expiry.cancel()
        return None if _is_lost(spare.birth) else spare.birth

    def drop(self, owner: Owner) -> None:
        """End the process that waits for an owner's load."""
        spare = self._of.pop(owner, None)
        if spare is not None:
            spare.expiry.cancel()
            spare.birth.add_done_callback(end_unwanted)

    def stop(self) -> None:
        """Forget them all: their ends are the supervisor's."""
        for spare in self._of.values():
            spare.expiry.cancel()
        self._of.clear()


def end_unwanted(birth: asyncio.Task[Worker]) -> None:
    """End the process that was born, for nobody waits for it."""
    if not birth.cancelled() and birth.exception() is None:
        birth.result().kill(UNUSED)


def _is_lost(birth: asyncio.Task[Worker]) -> bool:
    if not birth.done():
        return False
    return birth.cancelled() or birth.exception() is not None or birth.result().lost is not None


def _retrieve(birth: asyncio.Task[Worker]) -> None:
    """Look at the failure of a birth that perhaps nobody will wait for."""
    if not birth.cancelled():
        birth.exception()
