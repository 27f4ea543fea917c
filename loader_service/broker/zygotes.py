"""One zygote for each principal, replaced when it is used up or broken."""

from __future__ import annotations

import asyncio
import os

from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import ZygoteRenewed
from loader_service.broker.settings import Settings
from loader_service.broker.zygote import Zygote
from loader_service.broker.zygote_process import start_zygote

USED_UP, BROKEN = "used-up", "broken"
"""Why a zygote gives way to a new one."""


class Zygotes:
    """The zygotes of a broker: what belongs to two principals shares no address layout."""

    def __init__(self, settings: Settings, own: Zygote, events: EventStream) -> None:
        """Take over the broker's own."""
        self._settings = settings
        self._events = events
        self._of: dict[int, Zygote] = {os.geteuid(): own}

    @property
    def own(self) -> Zygote:
        """The one of the broker's own user."""
        return self._of[os.geteuid()]

    async def of(self, principal: int) -> Zygote:
        """Return the principal's zygote; a used-up one is replaced."""
        zygote = self._of.get(principal)
        if zygote is not None and zygote.forks >= self._settings.forks_per_zygote:
            await self.discard(principal, zygote, USED_UP)
        if principal not in self._of:
            self._of[principal] = Zygote(start_zygote(self._settings.runtime))
        return self._of[principal]

    async def discard(self, principal: int, zygote: Zygote, reason: str) -> None:
        """End a zygote that is used up or broken; of several who notice only the first acts."""
        if self._of.get(principal) is zygote:
            del self._of[principal]
            self._events.tell(ZygoteRenewed(user=principal, forks=zygote.forks, reason=reason))
            await zygote.end()

    def notice_deaths(self) -> None:
        """Reap those that have ended by themselves."""
        for zygote in self._of.values():
            zygote.notice_death()

    async def end(self) -> None:
        """End all of them, and what they are making."""
        for zygote in self._of.values():
            zygote.interrupt()
        await asyncio.gather(*(zygote.end() for zygote in self._of.values()))
        self._of.clear()
