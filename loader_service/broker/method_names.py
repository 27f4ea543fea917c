"""gRPC servers that go on after a call whose method's name is no text.

A server of ``grpc.aio`` reads the name of a method that nobody registered as UTF-8, and shuts down
when it is none: one caller could end it for all. Every method here is registered. So whatever is
not for one of them is answered before its name is read, as gRPC answers for unknown methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

ANSWERED_AT_A_TIME = 64


class _Server(cygrpc.AioServer):  # type: ignore[misc]  # gRPC does not type it
    """The server within one of ``grpc.aio``; versions that read names elsewhere ask for nothing."""

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Return a future for the next call of a registered method, or, without one, of others."""
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return asyncio.get_running_loop().create_task(self._refuse_all())

    async def _refuse_all(self) -> None:
        """Answer calls of unknown methods for as long as the server runs."""
        under_way: set[asyncio.Task[None]] = set()
        while True:
            call = await self._request_call()
            task = asyncio.create_task(_refuse(call))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if len(under_way) >= ANSWERED_AT_A_TIME:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)


async def _refuse(call: object) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    try:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    except grpc.aio.BaseError as error:  # aborting raises one, and the caller may have gone
        # The call holds it, and by this it would hold the call until garbage is collected.
        error.__traceback__ = None


def make_server(
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),  # type: ignore[type-arg]
    options: Sequence[tuple[str, int]],
    maximum_concurrent_rpcs: int | None = None,
) -> grpc.aio.Server:
    """Make a server; its methods must be registered, as generated code does it."""
    given = cygrpc.AioServer
    cygrpc.AioServer = _Server
    try:
        return grpc.aio.server(
            interceptors=interceptors,
            options=options,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
    finally:
        cygrpc.AioServer = given
