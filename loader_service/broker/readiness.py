"""Whether the service takes in models, for those who wait to see it change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Readiness:
    """A yes or no with an event at each change."""

    def __init__(self) -> None:
        self.able = False
        """Whether workers can be made."""
        self.draining = False
        """Whether none are to be made any more."""
        self.change = asyncio.Event()
        """Set when it is no longer so; after that there is another one."""
        self.when_changed: list[Callable[[bool], None]] = []
        """Called with each change."""

    @property
    def ready(self) -> bool:
        """Whether models are taken in."""
        return self.able and not self.draining

    def set(self, able: bool) -> None:
        """Say whether workers can be made now."""
        self._become(able, self.draining)

    def drain(self, draining: bool) -> None:
        """Say whether no more of them are to be made."""
        self._become(self.able, draining)

    def _become(self, able: bool, draining: bool) -> None:
        before = self.ready
        self.able, self.draining = able, draining
        if self.ready is not before:
            self.change.set()
            self.change = asyncio.Event()
            for call in self.when_changed:
                call(self.ready)
