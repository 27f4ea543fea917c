"""Reading the configuration again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.configuration.mistakes import ConfigurationError

log = logging.getLogger("model_loader.configuration")

Read = Callable[[], Settings]
"""Reads the configuration; raises ConfigurationError."""


class Reloading:
    """Lets a changed configuration hold for what comes; what runs already stays as it is."""

    def __init__(self, principals: Principals, supervisor: Supervisor) -> None:
        self._principals = principals
        self._supervisor = supervisor
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, read: Read, done: Callable[[bool], None]) -> None:
        """Read in the background, as a signal asks for it; `done` is told whether it changed."""
        task = asyncio.create_task(self._reload_and_tell(read, done))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _reload_and_tell(self, read: Read, done: Callable[[bool], None]) -> None:
        done(await self.reload(read))

    async def reload(self, read: Read) -> bool:
        """Read, check and replace; with a mistake in it nothing changes. Returns whether it did."""
        async with self._turn:
            try:
                # Users and groups may be asked for over a network.
                settings = await asyncio.to_thread(read)
                self._supervisor.check_policies(settings)
            except ConfigurationError as error:
                for mistake in error.mistakes:
                    log.error("the configuration was not changed: %s", mistake)
                return False
            except Refusal as refusal:
                log.error("the configuration was not changed: %s", refusal)
                return False
            waiting = self._principals.replace(settings)
            logging.getLogger().setLevel(settings.log_level.upper())
            log.info("the configuration was read again, and holds for the next loads")
            if waiting:
                names = ", ".join(sorted(waiting))
                log.warning("changed, but only at the service's next start: %s", names)
            return True
