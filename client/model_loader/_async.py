"""The driver for an event loop: carries out the core's effects with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, TypeVar

from ._async_channel import AsyncChannel
from ._async_control import AsyncControl
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
from .errors import InvalidStateError

Result = TypeVar("Result")


class AsyncDriver:
    """Carries out effects on the loop that it was made on; knows one gRPC channel."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = AsyncControl(self._loop)
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
        self._control.keep(self.run(steps))

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
        return await self._control.ask(effect.method, request, effect.timeout)

    async def _notify(self, effect: Notify) -> None:
        self._tell(effect)

    def _tell(self, effect: Notify) -> None:
        self._control.notify(effect.method, effect.request.SerializeToString())

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

        tell = effect.unclaimed
        unclaimed = None if tell is None else lambda reply: self._tell(tell(reply))
        try:
            return await self._control.ask(effect.method, requests(), effect.timeout, unclaimed)
        except Exception:
            if faults:
                raise faults[0] from None
            raise

    async def _pause(self, effect: Pause) -> None:
        await asyncio.sleep(effect.seconds)

    async def _in_thread(self, effect: InThread) -> Any:
        return await asyncio.to_thread(effect.function)

    async def _adopt(self, effect: Adopt) -> AsyncChannel:
        return AsyncChannel(self._loop, effect.socket, effect.ended)

    async def _dial(self, effect: Dial) -> None:
        self._control.dial(effect.target, effect.token, tls=effect.tls)

    async def _forget(self, effect: Forget) -> None:
        self._control.forget()

    async def _open_stream(self, effect: OpenStream) -> Any:
        request = effect.request.SerializeToString()
        return await self._control.open_stream(request, effect.timeout, effect.told)

    async def _hang_up(self, effect: HangUp) -> None:
        await self._control.hang_up()
