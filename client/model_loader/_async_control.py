"""The control plane for an event loop: one channel of grpc.aio."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from . import _fork
from ._blocking_control import GRPC_OPTIONS, NOTIFY_SECONDS, STREAMED, Unclaimed
from ._messages import SERVICE, SESSION_KEY, error_of_status, read_reply
from ._tls import Tls, open_channel
from .errors import InvalidStateError, NetworkError


class AsyncControl:
    """One gRPC channel, for the loop that it was made for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._target = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._stream: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._generation = _fork.current

    def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run what nobody waits for."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def dial(self, target: str, token: str, *, tls: Tls | None = None) -> None:
        """Make the channel, or only change the token."""
        self._metadata = ((SESSION_KEY, token),) if token else ()
        if target != self._target:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.cancel()
            if self._channel is not None:
                # What is still called there finds out by itself: closing would cancel its task.
                self.keep(self._channel.close(NOTIFY_SECONDS))
            self._channel = open_channel(grpc.aio, target, tls, GRPC_OPTIONS)
            self._methods = {}
            self._target = target

    def forget(self) -> None:
        """Let the next `dial` make a channel, whatever its target is."""
        self._target = ""

    async def ask(
        self,
        method: str,
        request: bytes | AsyncIterator[bytes],
        timeout: float | None,
        unclaimed: Unclaimed | None = None,
    ) -> Message:
        """Call and wait for the reply.

        A cancelled task withdraws the call; a reply that came just then is given to `unclaimed`.
        """
        call = self._start(method, request, timeout)
        ending = None if isinstance(request, bytes) else _Ending(call)
        try:
            return read_reply(method, await call)
        except grpc.RpcError as error:
            raise (ending and ending.error_behind(error)) or _error_of(error) from None
        except Exception:
            call.cancel()
            raise
        except BaseException:
            call.cancel()
            if unclaimed is not None:
                self.keep(_give(method, call, unclaimed))
            raise

    def notify(self, method: str, request: bytes) -> None:
        """Start a call whose reply nobody waits for."""
        try:
            call = self._start(method, request, NOTIFY_SECONDS)
        except Exception:  # the connection is gone, and with it what was to be told
            return
        self.keep(_swallow(call))

    async def open_stream(
        self, request: bytes, timeout: float, told: Callable[[Any], None]
    ) -> Message:
        """Call OpenSession and keep its stream; gives the first event, and tells of the others."""
        stream = self._channel.unary_stream(SERVICE + "OpenSession")(request)
        try:
            async with asyncio.timeout(timeout):
                first = await stream.read()
        except BaseException as error:
            stream.cancel()
            if isinstance(error, grpc.RpcError):
                raise _error_of(error) from None
            if isinstance(error, TimeoutError):
                raise NetworkError("the service did not open a session in time") from None
            raise
        if first is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise NetworkError("the service ended the session at once")
        self._stream = stream
        listening = self._loop.create_task(_listen(stream, told))
        # A forgotten connection must not be kept by who listens for it.
        weakref.finalize(self, _stop_listening, self._loop, listening).atexit = False
        return read_reply("OpenSession", first)

    async def hang_up(self) -> None:
        """End the stream and the channel."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        channel, self._channel = self._channel, None
        self._methods = {}  # they hold the channel, and that its connection
        if channel is not None:
            await channel.close()

    def _start(
        self, name: str, request: bytes | AsyncIterator[bytes], timeout: float | None
    ) -> Any:
        _fork.check(self._generation, "connection")
        channel = self._channel
        if channel is None:
            raise InvalidStateError("the connection was closed")
        method = self._methods.get(name)
        if method is None:
            make = channel.stream_unary if name in STREAMED else channel.unary_unary
            method = self._methods[name] = make(SERVICE + name)
        return method(request, timeout=timeout, metadata=self._metadata)


class _Ending:
    """What was said first of why a call with a stream of requests ended.

    When a request cannot be written because the call is over, grpc.aio puts an internal error of
    its own in the place of the service's word (https://github.com/grpc/grpc/issues/36066).
    """

    def __init__(self, call: Any) -> None:
        self._said: tuple[Any, Any, Any] | None = None
        call.add_done_callback(self._note)

    def error_behind(self, error: Any) -> Exception | None:
        """Give the error that an internal one stands in the place of, if there is one."""
        if self._said is None or error.code() is not grpc.StatusCode.INTERNAL:
            return None
        code, details, trailers = self._said
        return error_of_status(code.name, details or "", tuple(trailers or ()))

    def _note(self, call: Any) -> None:
        if self._said is None:
            code, details, trailers = call.code(), call.details(), call.trailing_metadata()
            self._said = (_at_once(code), _at_once(details), _at_once(trailers))


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Give the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a call that is over still waits for its status")


async def _listen(stream: Any, told: Callable[[Any], None]) -> None:
    """Pass on the events of a session until they end."""
    try:
        while (data := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            told(read_reply("OpenSession", data))
    except (grpc.RpcError, NetworkError, asyncio.CancelledError):
        pass  # a task that ends by an error would hold it, and that the stream
    finally:
        stream.cancel()
        told(None)


def _stop_listening(loop: asyncio.AbstractEventLoop, listening: asyncio.Task[None]) -> None:
    """Called in any thread, at any time."""
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(listening.cancel)


async def _give(method: str, call: Any, unclaimed: Unclaimed) -> None:
    """Pass on a reply that came just when its caller was cancelled."""
    data = await _swallow(call)
    if data is not None:
        unclaimed(read_reply(method, data))


async def _swallow(call: Any) -> Any:
    try:
        return await call
    except (grpc.RpcError, asyncio.CancelledError):
        return None


def _error_of(error: Any) -> Exception:
    trailers = tuple(error.trailing_metadata() or ())
    return error_of_status(error.code().name, error.details() or "", trailers)
