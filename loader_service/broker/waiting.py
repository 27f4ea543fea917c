"""Waiting for a socket on the event loop, where asyncio has no call of its own for what follows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to receive, or the end."""
    loop = asyncio.get_running_loop()
    await _called(sock, loop.add_reader, loop.remove_reader)


async def writable(sock: socket.socket) -> None:
    """Wait until there is room to send into."""
    loop = asyncio.get_running_loop()
    await _called(sock, loop.add_writer, loop.remove_writer)


async def _called(
    sock: socket.socket,
    add: Callable[..., None],
    remove: Callable[[socket.socket], bool],
) -> None:
    ready = asyncio.Event()
    add(sock, ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock)
