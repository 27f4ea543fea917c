"""The broker's end of a zygote, with a process in its place that only waits."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from loader_service.broker.zygote import Zygote, ZygoteGone
from loader_service.broker.zygote_process import ZygoteProcess
from loader_service.worker.orders import Spawn

SECONDS = 60
AT_ONCE = 10
"""A bound for what waits for nothing."""


@pytest.fixture
def started() -> Iterator[tuple[ZygoteProcess, socket.socket]]:
    """A process, and the other end of its socket, on which it says nothing by itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with ours, theirs:
        theirs.settimeout(SECONDS)
        theirs.send(json.dumps({"runtime": "none", "version": "1"}).encode())
        yield ZygoteProcess(process, ours), theirs
    process.kill()
    process.wait()


def test_nobody_who_asks_waits_for_a_worker_that_is_made(
    started: tuple[ZygoteProcess, socket.socket],
) -> None:
    async def ask() -> int:
        zygote = Zygote(started[0])
        await zygote.warmed(SECONDS)
        making = asyncio.create_task(zygote.spawn(Spawn(None), (), SECONDS))
        order = await asyncio.to_thread(started[1].recv, 65536)
        assert json.loads(order)["channels"] == 1
        async with asyncio.timeout(AT_ONCE):
            await zygote.warmed(SECONDS)
            await zygote.answer(SECONDS)
        started[1].send(json.dumps({"pid": 7}).encode())
        return await making

    assert asyncio.run(ask()) == 7


def test_one_that_does_not_answer_is_not_held_to_be_making_a_worker(
    started: tuple[ZygoteProcess, socket.socket],
) -> None:
    async def ask() -> list[type[BaseException] | None]:
        zygote = Zygote(started[0])
        await zygote.warmed(SECONDS)
        asked = await asyncio.gather(zygote.answer(0.2), zygote.answer(0.2), return_exceptions=True)
        return [None if it is None else type(it) for it in asked]

    assert asyncio.run(ask()) == [ZygoteGone] * 2


def test_the_end_of_a_service_waits_for_no_worker_that_is_made(
    started: tuple[ZygoteProcess, socket.socket],
) -> None:
    async def end() -> None:
        zygote = Zygote(started[0])
        await zygote.warmed(SECONDS)
        making = asyncio.create_task(zygote.spawn(Spawn(None), (), SECONDS))
        await asyncio.to_thread(started[1].recv, 65536)
        zygote.interrupt()
        assert started[0].process.returncode is not None
        started[1].close()
        async with asyncio.timeout(AT_ONCE):
            with suppress(ZygoteGone):
                await making
            await zygote.end()

    asyncio.run(end())
