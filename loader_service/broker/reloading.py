"""Reading the configuration again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import SettingsChanged
from loader_service.broker.principals import REPLACED, Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.configuration.mistakes import ConfigurationError

log = logging.getLogger("model_loader.configuration")

Read = Callable[[], Settings]
"""Reads the configuration; raises ConfigurationError."""


class Reloading:
    """Lets a changed configuration hold for what comes; what runs already stays as it is."""

    def __init__(self, principals: Principals, supervisor: Supervisor, events: EventStream) -> None:
        self._principals = principals
        self._events = events
        self._supervisor = supervisor
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, read: Read, done: Callable[[bool], None]) -> None:
        """Read in the background, as a signal asks for it; `done` is told whether it changed."""
        task = asyncio.create_task(self._reload_and_tell(read, done))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _reload_and_tell(self, read: Read, done: Callable[[bool], None]) -> None:
        changed = False
        try:
            changed = await self.reload(read)
        except Exception:
            log.exception("reading the configuration again failed; it was not changed")
        finally:
            # Whoever asked for it waits for that.
            done(changed)

    async def reload(self, read: Read) -> bool:
        """Read, check and replace; with a mistake in it nothing changes. Returns whether it did.

        Limits that were set meanwhile are what the configuration says again.
        """
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
            before = self._principals.settings
            waiting = self._principals.replace(settings)
            self._tell(before)
            logging.getLogger().setLevel(settings.log_level.upper())
            log.info("the configuration was read again, and holds for the next loads")
            if waiting:
                names = ", ".join(sorted(waiting))
                log.warning("changed, but only at the service's next start: %s", names)
            return True

    def _tell(self, before: Settings) -> None:
        """Tell what has changed by the names of the settings: a policy may hold many values."""
        now = self._principals.settings
        names = [name for name in REPLACED if getattr(now, name) != getattr(before, name)]
        changes = ", ".join(names) or "nothing"
        self._events.tell(SettingsChanged(by="the configuration, read again", changes=changes))
