"""A worker process that does what the test says: for the broker's handle of it.

The script runs in a Python of its own that knows nothing of the project, with the five descriptors
of a worker, and with these names: `control`, `channel` (sockets), `say(kind, payload)` and
`take()` for messages on the control socket, and the modules os, signal, socket, struct, sys, time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from loader_service.broker.host import Host
from loader_service.broker.last_words import LastWords
from loader_service.broker.worker import Worker
from loader_service.worker.orders import Go, Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import DEFAULT_LIMITS, Limits

HANG_SECONDS = 20.0
VERDICT_SECONDS = 5.0
GO = Go(
    task=Task.LOAD,
    threads=1,
    data_bytes=None,
    memory_bytes=1 << 30,
    cpu_seconds=None,
    tensor_bytes=1000,
    output_bytes=1000,
    model_size=0,
)
PRELUDE = """
import os, signal, socket, struct, sys, time
control, channel = socket.socket(fileno=3), socket.socket(fileno=4)
def say(kind, payload=b""):
    control.sendall(struct.pack("<IB", len(payload), kind) + payload)
def read(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data
def take():
    length, kind = struct.unpack("<IB", read(control, 5))
    return kind, read(control, length)
GO, MODEL, MODEL_END, PING, READY, LOADED, INSPECTED, FAILED, PONG = 1, 2, 3, 4, 16, 17, 18, 19, 20
OPEN, CLOSE, CLOSED, GONE = 5, 6, 21, 22
"""
READY = """
take()
say(READY, b'{"layers": ["seccomp"], "missing": {}}')
"""


@asynccontextmanager
async def fake_worker(script: str, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Worker]:
    """Start a worker that runs `script`; at the end it is dead and everything closed."""
    async with _fake(script, Worker, limits) as worker:
        yield worker


@asynccontextmanager
async def fake_host(
    script: str, channels: int, limits: Limits = DEFAULT_LIMITS
) -> AsyncIterator[Host]:
    """As `fake_worker`, for several models; it has one of its channels."""

    def make(
        pid: int, control: socket.socket, client: socket.socket, *more: Any, **others: Any
    ) -> Host:
        clients = [client]
        for _ in range(channels - 1):
            another, theirs = socket.socketpair()
            theirs.close()
            clients.append(another)
        return Host(pid, control, clients, *more, **others)

    async with _fake(script, make, limits) as worker:
        assert isinstance(worker, Host)
        yield worker


@asynccontextmanager
async def _fake(script: str, make: Callable[..., Worker], limits: Limits) -> AsyncIterator[Worker]:
    ours, theirs = socket.socketpair()
    client, channel = socket.socketpair()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    given = {0: null, 1: null, 2: writing, 3: theirs.fileno(), 4: channel.fileno()}
    with theirs, channel:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", PRELUDE + script],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, target) for target, source in given.items()
            ],
        )
    os.close(writing)
    os.close(null)
    ours.setblocking(False)
    ended: list[Worker] = []
    worker = make(
        pid, ours, client, LastWords(reading), None, limits, ended.append, VERDICT_SECONDS
    )
    try:
        yield worker
    finally:
        await worker.end(Failure(Cause.CLOSED, "the test is over"))
        assert ended == [worker]
        # What was left for the next turn of the loop: closing transports.
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test that is a coroutine; it must leave no descriptor open and no fault unseen."""
    faults: list[object] = []

    async def bounded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        before = set(os.listdir("/proc/self/fd"))
        async with asyncio.timeout(HANG_SECONDS):
            await test()
            while set(os.listdir("/proc/self/fd")) - before:
                await asyncio.sleep(0.001)

    asyncio.run(bounded())
    assert not faults, faults
