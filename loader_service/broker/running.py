"""Running a broker in this process, from its settings to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loader_service.broker.beginning import Beginning, begin
from loader_service.broker.directory import Directory
from loader_service.broker.service_manager import ServiceManager
from loader_service.broker.settings import Settings
from loader_service.broker.zygote import Zygote


def run(
    settings: Settings,
    directory: Directory,
    ready: Callable[[asyncio.Event], None] = lambda over: None,
    read: Callable[[], Settings] | None = None,
    begun: Beginning | None = None,
    manager: ServiceManager | None = None,
) -> None:
    """Run a broker until it is drained, as by SIGINT or SIGTERM; the directory goes with it.

    `ready` is called once clients can attach, with an event that also ends the broker. `read` reads
    the configuration again, at each SIGHUP. `begun` is for who began already. `manager` is told how
    it goes. Raises Refusal or OSError, when all has ended, if the broker could not start.
    """
    tree, started = begun or begin(settings.runtime)
    # The runtime warms up while this process imports gRPC.
    from loader_service.broker.broker import Broker
    from loader_service.broker.life import Life

    async def live() -> None:
        broker = Broker(settings, directory, tree, Zygote(started))
        life = Life(broker, manager or ServiceManager(), settings.drain_seconds)
        life.take_signals(read)
        try:
            await broker.start()
            life.ready()
            ready(life.over)
            await life.until_over()
        finally:
            await broker.stop()

    asyncio.run(live())
