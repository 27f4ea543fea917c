"""The driver for an event loop: carries out the core's effects with asyncio and grpc.aio."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, TypeVar

import grpc
import grpc.aio

from . import _fork
from ._async_channel import AsyncChannel
from ._blocking_control import GRPC_OPTIONS, NOTIFY_SECONDS, STREAMED
from ._effects import (
    Adopt,
    Call,
    Dial,
    Effect,
    Exclusive,
    Forget,
    HangUp,
    InThread,
    Notify,
    OpenStream,
    Pause,
    Steps,
    Transfer,
    Upload,
)
from ._messages import SERVICE, SESSION_KEY, error_of_status, read_reply
from ._tls import open_channel
from .errors import InvalidStateError, NetworkError

Result = TypeVar("Result")


class AsyncDriver:
    """Carries out effects on the loop that it was made on; knows one gRPC channel."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._stream: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._generation = _fork.current
        self._carry_out: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Transfer: self._transfer,
            Exclusive: self.exclusive,
            Call: self._call,
            Notify: self._notify,
            Upload: self._upload,
            Pause: self._pause,
            InThread: self._in_thread,
            Adopt: self._adopt,
            Dial: self._dial,
            Forget: self._forget,
            OpenStream: self._open_stream,
            HangUp: self._hang_up,
        }

    @staticmethod
    def make_turn() -> asyncio.Lock:
        """Make the lock that a model's ``Exclusive`` effects need."""
        return asyncio.Lock()

    async def run(self, steps: Steps[Result]) -> Result:
        """Run a piece of the core to its end."""
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidStateError(
                "this object belongs to another event loop; each loop has its own connection"
            )
        carry_out = self._carry_out
        effect: Effect
        result: Any = None
        fault: BaseException | None = None
        while True:
            try:
                if fault is not None:
                    effect, fault = steps.throw(fault), None
                    result = await carry_out[type(effect)](effect)
                while True:
                    effect = steps.send(result)
                    result = await carry_out[type(effect)](effect)
            except StopIteration as stop:
                fault = None  # the steps may have dealt with it; see below
                value: Result = stop.value
                return value
            except GeneratorExit:  # the loop is gone: nothing can be awaited any more
                steps.close()
                raise
            except BaseException as error:
                if getgeneratorstate(steps) == GEN_CLOSED:  # it came from the steps themselves
                    fault = None  # else error and frame would hold each other, and the call
                    raise
                fault = error

    def spawn(self, steps: Steps[Any]) -> None:
        """Run a piece of the core that nobody waits for."""
        self._keep(self.run(steps))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_unclaimed(self, effect: Upload, call: Any) -> None:
        """Tell the service of a reply that came just when its caller was cancelled."""
        data = await _swallow(call)
        if data is not None and effect.unclaimed is not None:
            await self._notify(effect.unclaimed(read_reply(effect.method, data)))

    async def _transfer(self, effect: Transfer) -> None:
        channel: AsyncChannel = effect.channel
        await channel.run(effect.exchange, effect.deadline, effect.ahead)

    async def exclusive(self, effect: Exclusive) -> Any:
        """Run steps while holding a turn."""
        turn: asyncio.Lock = effect.turn
        if not turn.locked():
            await turn.acquire()  # at once: only waiting costs a timer
        else:
            left = None if effect.deadline is None else effect.deadline - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    await turn.acquire()
            except TimeoutError:
                raise effect.late() from None
        try:
            return await self.run(effect.steps)
        finally:
            turn.release()

    async def _call(self, effect: Call) -> Any:
        request = effect.request.SerializeToString()
        return await self._reply(effect.method, self._start(effect.method, request, effect.timeout))

    async def _notify(self, effect: Notify) -> None:
        try:
            call = self._start(effect.method, effect.request.SerializeToString(), NOTIFY_SECONDS)
        except Exception:  # the connection is gone, and with it what was to be told
            return
        self._keep(_swallow(call))

    async def _upload(self, effect: Upload) -> Any:
        faults: list[BaseException] = []

        async def requests() -> AsyncIterator[bytes]:
            try:
                while True:
                    request = await asyncio.to_thread(next, effect.requests, None)
                    if request is None:
                        return
                    yield request.SerializeToString()
                    effect.progressed()
            except Exception as fault:
                faults.append(fault)
                raise

        call = self._start(effect.method, requests(), effect.timeout)
        ending = _Ending(call)
        try:
            return await self._reply(effect.method, call, ending)
        except Exception:
            if faults:
                raise faults[0] from None
            raise
        except BaseException:
            if effect.unclaimed is not None:
                self._keep(self._close_unclaimed(effect, call))
            raise

    async def _pause(self, effect: Pause) -> None:
        await asyncio.sleep(effect.seconds)

    async def _in_thread(self, effect: InThread) -> Any:
        return await asyncio.to_thread(effect.function)

    async def _adopt(self, effect: Adopt) -> AsyncChannel:
        return AsyncChannel(self._loop, effect.socket, effect.ended)

    async def _dial(self, effect: Dial) -> None:
        self._metadata = ((SESSION_KEY, effect.token),) if effect.token else ()
        if effect.target != self._target:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.cancel()
            if self._channel is not None:
                # What is still called there finds out by itself: closing would cancel its task.
                self._keep(self._channel.close(NOTIFY_SECONDS))
            self._channel = open_channel(grpc.aio, effect.target, effect.tls, GRPC_OPTIONS)
            self._methods = {}
            self._target = effect.target

    async def _forget(self, effect: Forget) -> None:
        self._target = ""

    async def _open_stream(self, effect: OpenStream) -> Any:
        method = self._channel.unary_stream(SERVICE + "OpenSession")
        stream = method(effect.request.SerializeToString())
        try:
            async with asyncio.timeout(effect.timeout):
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
        listening = self._loop.create_task(_listen(stream, effect.told))
        # A forgotten connection must not be kept by who listens for it.
        weakref.finalize(self, _stop_listening, self._loop, listening).atexit = False
        return read_reply("OpenSession", first)

    async def _hang_up(self, effect: HangUp) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        channel, self._channel = self._channel, None
        self._methods = {}  # they hold the channel, and that its connection
        if channel is not None:
            await channel.close()

    def _start(self, method: str, request: Any, timeout: float | None) -> Any:
        _fork.check(self._generation, "connection")
        channel = self._channel
        if channel is None:
            raise InvalidStateError("the connection was closed")
        call = self._methods.get(method)
        if call is None:
            make = channel.stream_unary if method in STREAMED else channel.unary_unary
            call = self._methods[method] = make(SERVICE + method)
        return call(request, timeout=timeout, metadata=self._metadata)

    async def _reply(self, method: str, call: Any, ending: _Ending | None = None) -> Any:
        try:
            return read_reply(method, await call)
        except grpc.RpcError as error:
            raise (ending and ending.error_behind(error)) or _error_of(error) from None
        except BaseException:
            call.cancel()  # a cancelled task withdraws the work, too
            raise


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


async def _swallow(call: Any) -> Any:
    try:
        return await call
    except (grpc.RpcError, asyncio.CancelledError):
        return None


def _error_of(error: Any) -> Exception:
    trailers = tuple(error.trailing_metadata() or ())
    return error_of_status(error.code().name, error.details() or "", trailers)
