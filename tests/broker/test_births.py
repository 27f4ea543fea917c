"""The birth of a worker for a channel that there is already; no process is made."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loader_service.broker.births import Births, Kind
from loader_service.broker.channels import KeptChannel
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal, over_limit
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from model_loader_wire.limits import Limits

KIND = Kind(Owner(7, "o"), Limits(), 1)


class SlowZygotes:
    """Have a zygote when they are let."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    async def of(self, _: int) -> Any:
        """Wait."""
        await self.ready.wait()

        async def warmed(_: float) -> None:
            return

        return SimpleNamespace(warmed=warmed)


class WithoutFork(Births):
    """Looks at the channel where the process would be made."""

    seen: KeptChannel
    inode = 0

    async def _fork(self, zygote: object, kind: Kind, kept: KeptChannel | None) -> Worker:
        assert kept is not None
        self.seen, self.inode = kept, os.fstat(kept.end.fileno()).st_ino
        return cast(Worker, SimpleNamespace(when_ended=lambda call: None))


class Counted:
    """Counts descriptors, up to one birth."""

    def __init__(self) -> None:
        self.held = 0

    def take(self, _: int, count: int) -> None:
        """Count, or refuse."""
        if self.held:
            raise over_limit("principal_descriptors", 2, 1, "too many")
        self.held += count

    def follow(self, principal: int, count: int, birth: object) -> None:
        """Go on counting."""


def test_a_birth_goes_on_when_the_channel_it_was_for_is_closed() -> None:
    async def run() -> None:
        zygotes = SlowZygotes()
        went: list[bool] = []
        births = WithoutFork(
            Settings(directory=""),
            cast(Any, Counted()),
            cast(Any, zygotes),
            None,
            lambda *_: None,
            went.append,
            lambda _: None,
        )
        client, end = socket.socketpair()
        inode = os.fstat(end.fileno()).st_ino
        kept = KeptChannel(end, 5)
        birth = births.begin(KIND, kept)
        with pytest.raises(Refusal):
            births.begin(KIND, kept)
        end.close()
        zygotes.ready.set()
        await birth
        await asyncio.sleep(0)
        # One that had failed would have said of the whole service that it can make no workers.
        assert went == [True]
        assert births.inode == inode
        assert births.seen.end.fileno() == -1
        client.close()

    asyncio.run(run())
