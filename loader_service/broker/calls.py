"""The calls of one gRPC socket: how many, how long their messages may take, and what they hold.

gRPC reads a whole message before it calls anybody, and keeps a whole reply until its caller has
taken it. So every call is counted here before its message is read, and until its reply is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from loader_service.broker.edge import Context, abort
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import CallRefused
from loader_service.broker.groups import Owner
from loader_service.broker.memory import of_this_machine, own_bytes, return_free_memory
from loader_service.broker.outstanding import Outstanding, bounds
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.request_id import new_request_id, request_id
from loader_service.broker.settings import Settings
from model_loader_wire.causes import Cause, Failure

LOOK_SECONDS = 0.1
"""Between two looks at the broker's own memory while messages are being received."""

SMALL_REPLY_BYTES = 4096
"""So much of a reply counts for nothing: a limit that is meant for tensors must not refuse the
outcome of a load. `calls_at_a_time` bounds how many such replies there are."""
MOST_BYTES = 4 << 30
"""What ``broker_memory_bytes`` is at most where it is not set."""

Handler = Any
"""A grpc.RpcMethodHandler, which gRPC does not type."""


class Passing:
    """The messages of all principals that are on their way, in the broker's memory."""

    def __init__(self, settings: Settings, principals: Principals) -> None:
        self._most = settings.broker_memory_bytes or min(MOST_BYTES, of_this_machine() // 2)
        self.replies = Outstanding(
            "bytes_in_flight",
            "too many bytes of replies that were not taken",
            total=bounds(principals, "bytes_in_flight")[1],
        )
        """Replies that their callers have not taken yet."""
        self._calls: set[Call] = set()
        self._watching: asyncio.Task[None] | None = None

    def begin(self, call: Call) -> None:
        """A message is awaited."""
        self._calls.add(call)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def end(self, call: Call) -> None:
        """It has come, or nobody waits for it any more."""
        self._calls.discard(call)

    def stop(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while self._calls:
            await asyncio.sleep(LOOK_SECONDS)
            if own_bytes() > self._most:
                return_free_memory()
                if (used := own_bytes()) > self._most:
                    self._refuse_some(used)

    def _refuse_some(self, used: int) -> None:
        """Refuse what the principal receives who receives most: what came of it is dropped."""
        of: dict[int, list[Call]] = {}
        for call in self._calls:
            of.setdefault(call.principal, []).append(call)
        what = "the messages that the service is receiving need too much of its memory"
        for call in max(of.values(), key=len, default=[]):
            call.refuse(over_limit("broker_memory_bytes", used, self._most, what))


class Call:
    """One call under way."""

    def __init__(
        self, principal: int, context: Context, refused: Callable[[Failure], None]
    ) -> None:
        """Have `refused` told if the call is refused here, before or after its method."""
        self.principal = principal
        self._refused = refused
        self._task = asyncio.current_task()
        self._context = context
        self._refusal: Refusal | None = None

    def refuse(self, refusal: Refusal) -> None:
        """End it with this refusal, wherever it is."""
        if self._refusal is None and self._task is not None:
            self._refusal = refusal
            self._task.cancel()

    async def run(self, answer: Callable[[], Awaitable[None]]) -> None:
        """Answer it; a refusal becomes a status."""
        try:
            await answer()
        except Refusal as refusal:
            self._refused(refusal.failure)
            await abort(self._context, refusal.failure)
        except grpc.aio.InternalError:
            # The caller has left: nobody is to be told anything, and the log least of all.
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            if self._refusal is None or self._task is None:
                raise
            self._task.uncancel()
            self._refused(self._refusal.failure)
            await abort(self._context, self._refusal.failure)


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Stands before every method of one principal's socket."""

    def __init__(
        self,
        principal: int,
        settings: Settings,
        principals: Principals,
        passing: Passing,
        events: EventStream,
    ) -> None:
        self._owner = Owner(principal, "")
        self._principals = principals
        self._events = events
        self._settings = settings
        self._passing = passing
        self._count = Outstanding("calls_at_a_time", "too many calls at a time")

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], handler_call_details: Any
    ) -> Handler:
        """Put the bounds around a method; the bytes on the wire stay the same."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name = str(handler_call_details.method).rpartition("/")[2]

        async def method(requests: AsyncIterator[Any], context: Context) -> None:
            # Each call runs in a task, and so in a context, of its own.
            request_id.set(new_request_id())
            call = Call(self._owner.principal, context, partial(self._refused, name))
            await call.run(lambda: self._answer(handler, call, requests, context))

        return grpc.stream_stream_rpc_method_handler(
            method, handler.request_deserializer, handler.response_serializer
        )

    def _refused(self, method: str, failure: Failure) -> None:
        user = self._owner.principal
        self._events.tell(CallRefused(user=user, method=method, failure=failure))

    async def _answer(
        self, handler: Handler, call: Call, requests: AsyncIterator[Any], context: Context
    ) -> None:
        with self._count.held(self._owner, 1, self._settings.calls_at_a_time):
            received = self._watched(call, requests)
            request = received if handler.request_streaming else await self._one_of(received)
            if handler.response_streaming:
                method = handler.stream_stream or handler.unary_stream
                await method(request, context)
                return
            method = handler.stream_unary or handler.unary_unary
            reply = await method(request, context)
            size = max(reply.ByteSize() - SMALL_REPLY_BYTES, 0)
            most = self._principals.policy_for(self._owner).limits.bytes_in_flight or 0
            with self._passing.replies.held(self._owner, size, most):
                # As long as the caller takes: gRPC drops a reply only with its connection.
                await context.write(reply)

    async def _watched(self, call: Call, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield the messages; what is still on its way can be refused."""
        while True:
            self._passing.begin(call)
            try:
                request = await anext(requests, None)
            finally:
                self._passing.end(call)
            if request is None:
                return
            yield request

    async def _one_of(self, received: AsyncIterator[Any]) -> Any:
        """Return the one message of a call; raises Refusal."""
        seconds = self._settings.message_seconds
        try:
            async with asyncio.timeout(seconds):
                request = await anext(received, None)
        except TimeoutError:
            message = f"the call's message did not come within message_seconds = {seconds:g}"
            failure = Failure(Cause.TIMEOUT, message, "message_seconds", seconds, seconds)
            raise Refusal(failure) from None
        if request is None:
            raise refuse(Cause.INVALID_INPUT, "this call is one message, and none came")
        return request
