"""The admin socket: the kernel says who connects, and only then the bytes go on to gRPC.

gRPC cannot tell who is at the other end of a Unix socket. So this socket is the service's own. Each
connection of somebody who may steer the service is joined with a connection to a gRPC server of
that user, whose socket lies where nobody but the service's user can go.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("model_loader.admin")

CREDENTIALS = struct.Struct("iII")
PIECE = 1 << 16
AT_A_TIME = 64
"""Connections; one more is closed at once."""
ROOT = 0

Inner = Callable[[int], Awaitable[str]]
"""Gives the path of the gRPC socket for a uid."""


class AdminGate:
    """Lets in root and the service's own user, and nobody else."""

    def __init__(self, path: str, inner: Inner) -> None:
        """Listen on `path`, which only the service's user and root can open."""
        self._inner = inner
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        before = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(before)
        Path(path).chmod(0o600)

    async def start(self) -> None:
        """Accept from now on."""
        self._server = await asyncio.start_unix_server(self._connected, sock=self._socket)

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()

    async def cut(self, seconds: float) -> None:
        """End every connection: what is on its way may pass for so long."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=seconds)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            uid = _peer(writer)
            if uid not in (ROOT, os.geteuid()):
                log.warning("uid %d was turned away at the admin socket", uid)
                return
            if len(self._connections) > AT_A_TIME:
                log.warning("there are more than %d connections to the admin socket", AT_A_TIME)
                return
            await _join(reader, writer, await self._inner(uid))
        except OSError as error:
            log.info("a connection to the admin socket ended: %s", error)
        except asyncio.CancelledError:
            # By `stop`. asyncio would take it for a fault of this task, and log that.
            return
        finally:
            self._connections.discard(task)
            writer.close()


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the uid of the process that connected, by the kernel's word."""
    connection = writer.get_extra_info("socket")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(data)
    return int(uid)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    """Pass on what comes from either side until one of them ends."""
    from_grpc, to_grpc = await asyncio.open_unix_connection(path)
    ways = {
        asyncio.create_task(_pass_on(reader, to_grpc)),
        asyncio.create_task(_pass_on(from_grpc, writer)),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_grpc.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
