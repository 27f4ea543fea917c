"""Running a broker in this process, from its settings to its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from loader_service.broker.beginning import Beginning, begin
from loader_service.broker.directory import Directory
from loader_service.broker.settings import Settings
from loader_service.broker.zygote import Zygote


def run(
    settings: Settings,
    directory: Directory,
    ready: Callable[[asyncio.Event], None] = lambda over: None,
    read: Callable[[], Settings] | None = None,
    begun: Beginning | None = None,
) -> None:
    """Run a broker until SIGINT or SIGTERM, or until it is drained; the directory goes with it.

    `ready` is called once clients can attach, with an event that also ends the broker. `read` reads
    the configuration again, at each SIGHUP. `begun` is for who began already. Raises Refusal or
    OSError, when all has ended, if the broker could not start.
    """
    tree, started = begun or begin(settings.runtime)
    # The runtime warms up while this process imports gRPC.
    from loader_service.broker.broker import Broker

    async def live() -> None:
        broker = Broker(settings, directory, tree, Zygote(started))
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        try:
            await broker.start()
            if read is not None:
                loop.add_signal_handler(signal.SIGHUP, broker.reloading.begin, read)
            ready(over)
            waits = [asyncio.create_task(event.wait()) for event in (over, broker.drained)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await broker.stop()

    asyncio.run(live())
