"""A service that ends and starts anew at its port: who asked for it comes back over the network."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from loader_service.writer import small, stateful
from model_loader_wire.causes import Cause
from tests.support.certificates import needs_openssl
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS
from tests.support.waiting import wait_until

from .conftest import TOKEN, Site

pytestmark = [pytest.mark.isolation, pytest.mark.slow, needs_openssl]

ONE = np.ones(1, np.float32)


class Place:
    """A port at which one service after another listens."""

    def __init__(self, site: Site) -> None:
        # It is bound all the time and never listens: so nobody else's port is this one meanwhile.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{self._holder.getsockname()[1]}"
        self.address = f"tcp://{listen}"
        self._file = site.configuration(listen, client_ca=True)
        self._daemon: Daemon | None = None

    def start(self) -> None:
        """Have a service."""
        assert self._daemon is None
        self._daemon = Daemon(config=self._file)

    def end(self) -> None:
        """Have none."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            assert daemon.close() == 0
            assert "Traceback" not in daemon.log(), daemon.log()

    def close(self) -> None:
        """Give the port back."""
        self.end()
        self._holder.close()


@pytest.fixture
def place(site: Site) -> Iterator[Place]:
    """A port with a service."""
    place = Place(site)
    try:
        place.start()
        yield place
    finally:
        place.close()


def test_models_come_back_and_what_keeps_state_does_not(place: Place, site: Site) -> None:
    shown = site.client("alice", TOKEN)
    with (
        ml.connect(place.address, reconnect=True, **shown) as connection,
        ml.create_context(connection=connection) as context,
    ):
        loader = ml.MLModelLoader(context)
        model, counter = loader.load(small.add(41)), loader.load(stateful.counter())
        first = model.isolation.worker_pid
        assert model.compute(ONE) == 42
        assert counter.compute(ONE) == 1
        place.end()
        wait_until(lambda: context.lost is not None, "the loss of the context")
        for lost in (context.lost, model.lost, counter.lost):
            assert lost is not None
            assert lost.reason is Cause.UNAVAILABLE
        with pytest.raises(ml.NetworkError):
            model.compute(ONE, timeout=0.3)

        # Called before there is a service again, and answered by that.
        answers: list[Any] = []
        caller = threading.Thread(target=lambda: answers.append(model.compute(ONE)))
        caller.start()
        place.start()
        caller.join(2 * HANG_SECONDS)
        assert answers == [42]
        assert model.lost is None
        assert context.lost is None
        assert model.isolation.worker_pid != first
        with pytest.raises(ml.InvalidStateError, match="load it again"):
            counter.compute(ONE)
        assert loader.load(stateful.counter()).compute(ONE) == 1
        assert len(connection.models()) == 2


def test_they_come_back_on_an_event_loop(place: Place, site: Site) -> None:
    async def main() -> None:
        async with (
            await ml.aio.connect(place.address, reconnect=True, **site.client("bob")) as connection,
            await ml.aio.create_context(connection=connection) as context,
        ):
            model = await ml.aio.MLModelLoader(context).load(small.add(41))
            assert await model.compute(ONE) == 42
            await asyncio.to_thread(place.end)
            async with asyncio.timeout(HANG_SECONDS):
                while context.lost is None:
                    await asyncio.sleep(0.01)
            waiting = asyncio.create_task(model.compute(ONE))
            await asyncio.to_thread(place.start)
            async with asyncio.timeout(2 * HANG_SECONDS):
                assert await waiting == 42
            assert model.lost is None

    asyncio.run(main())


def test_who_listens_there_is_checked_again(place: Place, site: Site) -> None:
    """By the files as they are then: here another authority's, by mistake, and the right one's."""
    shown = site.client("alice")
    trusted = site.folder / "trusted.pem"
    shutil.copyfile(shown["ca"], trusted)
    shown["ca"] = trusted
    with (
        ml.connect(place.address, reconnect=True, **shown) as connection,
        ml.create_context(connection=connection) as context,
    ):
        model = ml.MLModelLoader(context).load(small.add(41))
        place.end()
        wait_until(lambda: context.lost is not None, "the loss of the context")
        replace(trusted, site.stranger.certificate)
        place.start()
        with pytest.raises(ml.NetworkError):
            model.compute(ONE, timeout=1)
        assert model.lost is not None
        replace(trusted, site.authority.certificate)
        assert model.compute(ONE) == 42


def replace(path: Path, other: Path) -> None:
    """Give a file another one's bytes, which is seen whole."""
    new = path.with_suffix(".new")
    shutil.copyfile(other, new)
    new.rename(path)
