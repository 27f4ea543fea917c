"""The metrics over HTTP: on a Unix socket for the service's group, on a loopback port by choice."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger("model_loader.metrics")

LOOPBACK = "127.0.0.1"
PATHS = ("/metrics", "/")
REQUEST_BYTES = 16 << 10
"""Most of a request's head."""
REQUEST_SECONDS = 5.0
"""Longest wait for a request, and for its answer to be taken."""
AT_A_TIME = 16
"""Connections; one more is closed at once."""
SOCKET_MODE = 0o660


class Exposition:
    """Answers ``GET /metrics``, one request a connection."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.StreamWriter] = set()

    async def on_socket(self, path: str, gid: int, registry: CollectorRegistry) -> None:
        """Listen on a Unix socket that the service's user and one group can open."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.setblocking(False)
        # Closed to everybody until it belongs to the group; nothing may await under another umask.
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        os.chown(path, -1, gid)
        Path(path).chmod(SOCKET_MODE)
        self._servers.append(
            await asyncio.start_unix_server(
                self._answering(registry), sock=listening, limit=REQUEST_BYTES
            )
        )

    async def on_port(self, port: int, registry: CollectorRegistry) -> None:
        """Listen on a loopback port, which every program of this machine can reach."""
        server = await asyncio.start_server(
            self._answering(registry), LOOPBACK, port, limit=REQUEST_BYTES
        )
        self._servers.append(server)

    async def stop(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            _cut_off(client)

    def _answering(
        self, registry: CollectorRegistry
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._clients) >= AT_A_TIME:
                writer.close()
                return
            self._clients.add(writer)
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(_response(await _read_head(reader), registry))
                    # Until all of it was taken: who does not read is cut off, and counts till then.
                    writer.close()
                    await writer.wait_closed()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return
            finally:
                _cut_off(writer)
                self._clients.discard(writer)

        return answer


def _cut_off(writer: asyncio.StreamWriter) -> None:
    """End a connection, and drop what was not taken."""
    # A transport that has sent all and ended cannot be aborted any more, and says so like this.
    with suppress(AttributeError):
        writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head; an empty one if it is too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return b""


def _response(head: bytes, registry: CollectorRegistry) -> bytes:
    """Write the answer to a request."""
    words = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _written(HTTPStatus.BAD_REQUEST, b"this is no HTTP/1.1 request\n")
    method, target, _ = words
    if target.split("?", 1)[0] not in PATHS:
        return _written(HTTPStatus.NOT_FOUND, b"the metrics are at /metrics\n")
    if method not in ("GET", "HEAD"):
        return _written(HTTPStatus.METHOD_NOT_ALLOWED, b"the metrics can only be read\n")
    try:
        body = generate_latest(registry)
    except Exception:
        log.exception("the metrics could not be collected")
        return _written(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the service's log\n")
    return _written(HTTPStatus.OK, body, CONTENT_TYPE_LATEST, with_body=method == "GET")


def _written(
    status: HTTPStatus,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
    *,
    with_body: bool = True,
) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
