"""Whether the service can make workers, for those who wait to see it change."""

from __future__ import annotations

import asyncio


class Readiness:
    """A yes or no with an event at each change."""

    def __init__(self) -> None:
        self.ready = False
        self.change = asyncio.Event()
        """Set when it is no longer so; after that there is another one."""

    def set(self, ready: bool) -> None:
        """Say how it is now."""
        if ready is not self.ready:
            self.ready = ready
            self.change.set()
            self.change = asyncio.Event()
