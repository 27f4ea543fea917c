"""A broker's life as its operator steers it: ready, watched, read again, drained, ended."""

from __future__ import annotations

import asyncio
import logging
import signal
from functools import partial

from loader_service.broker.broker import Broker
from loader_service.broker.reloading import Read
from loader_service.broker.service_manager import ServiceManager
from loader_service.broker.signal_calls import call_at_signal

log = logging.getLogger("model_loader.broker")

STOP_SECONDS = 15.0
"""What an end may take after the drain; it takes a second."""


class Life:
    """Takes the signals of one broker, and tells the service manager what becomes of them."""

    def __init__(self, broker: Broker, manager: ServiceManager, drain_seconds: float) -> None:
        self.over = asyncio.Event()
        """Set when the broker is to end at once."""
        self._broker = broker
        self._manager = manager
        self._drain_seconds = drain_seconds
        self._is_ready = False
        self._draining: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def take_signals(self, read: Read | None) -> None:
        """Take the signals that end it, and the one that has its configuration read again."""
        for number in (signal.SIGINT, signal.SIGTERM):
            call_at_signal(number, partial(self.end, number.name))
        if read is not None:
            call_at_signal(signal.SIGHUP, partial(self._reload, read))

    def ready(self) -> None:
        """Say that clients can attach, and keep the watchdog quiet from now on."""
        self._is_ready = True
        self._manager.ready(self._broker.status())
        self._broker.when_readiness_changes(self._tell_status)
        if self._manager.ping_seconds is not None:
            self._watching = asyncio.create_task(self._watch(self._manager.ping_seconds))

    async def until_over(self) -> None:
        """Wait for the end, which a drain also comes to."""
        waits = [asyncio.create_task(event.wait()) for event in (self.over, self._broker.drained)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in (*waits, self._draining, self._watching):
            if task is not None:
                task.cancel()
        self._manager.stopping(STOP_SECONDS, "ending")

    def end(self, by: str) -> None:
        """Drain the broker, as it is asked for the first time; end it at once at the second."""
        if self._draining is not None or not self._is_ready:
            self.over.set()
            return
        log.info("%s: computations have %g s to end; again: none", by, self._drain_seconds)
        self._draining = asyncio.create_task(self._broker.drain(by, self._drain_seconds))
        self._manager.stopping(self._drain_seconds + STOP_SECONDS, "draining")

    def _reload(self, read: Read) -> None:
        self._manager.reloading()
        self._broker.reloading.begin(read, self._reloaded)

    def _reloaded(self, changed: bool) -> None:
        mistake = "" if changed else "; the changed configuration has a mistake, see the log"
        self._manager.ready(self._broker.status() + mistake)

    def _tell_status(self, _: bool) -> None:
        self._manager.status(self._broker.status())

    async def _watch(self, seconds: float) -> None:
        """Say that the service is alive, each time that it has been seen to be.

        That this runs shows the event loop; workers come from a zygote, and that must answer.
        """
        while True:
            if await self._broker.answers():
                self._manager.alive()
                self._manager.status(self._broker.status())
            await asyncio.sleep(seconds)
