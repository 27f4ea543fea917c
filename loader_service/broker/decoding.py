"""Requests whose bytes are no message: refused by the service itself.

gRPC would call them UNKNOWN, show the caller an exception of Python's, and log a traceback.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from loader_service.broker.edge import Context, abort
from loader_service.broker.refusal import Refusal, refuse
from model_loader_wire.causes import Cause

_UNREADABLE = object()
"""Stands for a request that cannot be read."""


class Decoding(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Puts itself between gRPC and every method of a server."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, with a reader that refuses; None for an unknown method."""
        method = str(handler_call_details.method)
        made = self._made.get(method)
        if made is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            made = self._made[method] = _refusing(handler)
        return made


def _refusing(handler: Any) -> Any:
    read = _reading(handler.request_deserializer)
    if handler.stream_unary is not None:
        behave = handler.stream_unary

        async def take(requests: AsyncIterator[Any], context: Context) -> Any:
            return await behave(_readable(requests), context)

        return grpc.stream_unary_rpc_method_handler(take, read, handler.response_serializer)
    behave = handler.unary_unary or handler.unary_stream
    assert inspect.iscoroutinefunction(behave), "a method that writes its replies by itself"

    async def answer(request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            await abort(context, _refusal().failure)
        return await behave(request, context)

    make = (
        grpc.unary_unary_rpc_method_handler
        if handler.unary_unary is not None
        else grpc.unary_stream_rpc_method_handler
    )
    return make(answer, read, handler.response_serializer)


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _UNREADABLE:
            raise _refusal()
        yield request


def _refusal() -> Refusal:
    return refuse(Cause.INVALID_INPUT, "the request's bytes are no message of this method")
