"""The driver for threads: carries out the core's effects with blocking calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, TypeVar

from google.protobuf.message import Message

from ._blocking_channel import BlockingChannel
from ._blocking_control import BlockingControl
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

Result = TypeVar("Result")
_WITHOUT_WAITING = (False,)


class BlockingDriver:
    """Carries out effects in the calling thread; knows one gRPC channel. Thread-safe."""

    def __init__(self) -> None:
        self._control = BlockingControl()
        self._carry_out: dict[type, Callable[[Any], Any]] = {
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
    def make_turn() -> threading.Lock:
        """Make the lock that a model's ``Exclusive`` effects need."""
        return threading.Lock()

    def run(self, steps: Steps[Result]) -> Result:
        """Run a piece of the core to its end."""
        carry_out = self._carry_out
        effect: Effect
        result: Any = None
        fault: BaseException | None = None
        while True:
            # Wherever an interruption comes, also between two effects, the steps get to see it.
            try:
                if fault is not None:
                    effect, fault = steps.throw(fault), None
                    result = carry_out[type(effect)](effect)
                while True:
                    effect = steps.send(result)
                    result = carry_out[type(effect)](effect)
            except StopIteration as stop:
                fault = None  # the steps may have dealt with it; see below
                value: Result = stop.value
                return value
            except BaseException as error:
                if getgeneratorstate(steps) == GEN_CLOSED:  # it came from the steps themselves
                    fault = None  # else error and frame would hold each other, and the call
                    raise
                fault = error

    def _transfer(self, effect: Transfer) -> None:
        channel: BlockingChannel = effect.channel
        channel.run(effect.exchange, effect.deadline, effect.ahead)

    def exclusive(self, effect: Exclusive) -> Any:
        """Run steps while holding a turn."""
        turn: threading.Lock = effect.turn
        # As in _blocking_channel: that the lock was taken must be known however the next
        # bytecode is interrupted, or nobody would ever release it.
        held: list[bool] = []
        try:
            held.extend(map(turn.acquire, _WITHOUT_WAITING))
            if not held[-1]:
                wait = -1.0
                if effect.deadline is not None:
                    wait = min(max(0.0, effect.deadline - time.monotonic()), threading.TIMEOUT_MAX)
                held.extend(map(turn.acquire, (True,), (wait,)))
                if not held[-1]:
                    raise effect.late()
            return self.run(effect.steps)
        finally:
            if held and held[-1]:
                turn.release()

    def _call(self, effect: Call) -> Any:
        return self._control.ask(effect.method, effect.request.SerializeToString(), effect.timeout)

    def _notify(self, effect: Notify) -> None:
        self._control.notify(effect.method, effect.request.SerializeToString())

    def _upload(self, effect: Upload) -> Any:
        # gRPC reads the requests in a thread of its own; what fails there must come out here.
        faults: list[BaseException] = []

        def requests() -> Iterator[bytes]:
            try:
                for request in effect.requests:
                    yield request.SerializeToString()
                    effect.progressed()
            except Exception as fault:
                faults.append(fault)
                raise

        tell = effect.unclaimed

        def unclaimed(reply: Message) -> None:
            if tell is not None:
                self._notify(tell(reply))

        try:
            return self._control.ask(effect.method, requests(), effect.timeout, unclaimed)
        except Exception:
            if faults:
                raise faults[0] from None
            raise

    def _pause(self, effect: Pause) -> None:
        time.sleep(effect.seconds)

    def _in_thread(self, effect: InThread) -> Any:
        return effect.function()

    def _adopt(self, effect: Adopt) -> BlockingChannel:
        return BlockingChannel(effect.socket)

    def _dial(self, effect: Dial) -> None:
        self._control.dial(effect.target, effect.token, tls=effect.tls)

    def _forget(self, effect: Forget) -> None:
        self._control.forget()

    def _open_stream(self, effect: OpenStream) -> Any:
        return self._control.open_stream(effect.request.SerializeToString(), effect.timeout)

    def _hang_up(self, effect: HangUp) -> None:
        self._control.hang_up()
