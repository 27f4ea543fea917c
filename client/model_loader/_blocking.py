"""The driver for threads: carries out the core's effects with blocking calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, TypeVar

import grpc
import grpc.experimental

from . import _fork
from ._blocking_channel import BlockingChannel
from ._effects import (
    Adopt,
    Call,
    Dial,
    Effect,
    Exclusive,
    HangUp,
    InThread,
    Notify,
    OpenStream,
    Steps,
    Transfer,
    Upload,
)
from ._messages import SERVICE, SESSION_KEY, error_of_status, read_reply
from .errors import InvalidStateError, NetworkError

NOTIFY_SECONDS = 10.0
STREAMED = frozenset({"Load", "Inspect"})

Result = TypeVar("Result")

GRPC_OPTIONS = [
    # What is received is capped by the limits in force, not by gRPC's 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A service that was started anew must not inherit a dead connection's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]

# gRPC survives a fork only if no other thread is in one of its calls just then. So nothing here
# leaves a thread behind: calls are the blocking ones, never futures (a channel's own thread would
# outlive the reply), and the stream that holds a relayed session open is driven by its reader.
STREAM_OPTIONS = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]


class BlockingDriver:
    """Carries out effects in the calling thread; knows one gRPC channel. Thread-safe."""

    def __init__(self) -> None:
        self._target = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._stream: Any = None
        self._generation = _fork.current
        self._carry_out: dict[type, Callable[[Any], Any]] = {
            Transfer: self._transfer,
            Exclusive: self.exclusive,
            Call: self._call,
            Notify: self._notify,
            Upload: self._upload,
            InThread: self._in_thread,
            Adopt: self._adopt,
            Dial: self._dial,
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
                value: Result = stop.value
                return value
            except BaseException as error:
                if getgeneratorstate(steps) == GEN_CLOSED:  # it came from the steps themselves
                    raise
                fault = error

    def _transfer(self, effect: Transfer) -> None:
        channel: BlockingChannel = effect.channel
        channel.run(effect.exchange, effect.deadline)

    def exclusive(self, effect: Exclusive) -> Any:
        """Run steps while holding a turn."""
        turn: threading.Lock = effect.turn
        wait = -1.0
        if effect.deadline is not None:
            wait = min(max(0.0, effect.deadline - time.monotonic()), threading.TIMEOUT_MAX)
        # As in _blocking_channel: that the lock was taken must be known however the next
        # bytecode is interrupted, or nobody would ever release it.
        held: list[bool] = []
        try:
            held.extend(map(turn.acquire, (True,), (wait,)))
            if not held[0]:
                raise effect.late()
            return self.run(effect.steps)
        finally:
            if held and held[0]:
                turn.release()

    def _call(self, effect: Call) -> Any:
        return self._ask(effect.method, effect.request.SerializeToString(), effect.timeout)

    def _notify(self, effect: Notify) -> None:
        with suppress(Exception):  # the connection is gone, and with it what was to be told
            self._method(effect.method).future(
                effect.request.SerializeToString(),
                timeout=NOTIFY_SECONDS,
                metadata=self._metadata,
            )

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

        try:
            return self._ask(effect.method, requests(), effect.timeout)
        except Exception:
            if faults:
                raise faults[0] from None
            raise

    def _in_thread(self, effect: InThread) -> Any:
        return effect.function()

    def _adopt(self, effect: Adopt) -> BlockingChannel:
        return BlockingChannel(effect.socket)

    def _dial(self, effect: Dial) -> None:
        self._metadata = ((SESSION_KEY, effect.token),) if effect.token else ()
        if effect.target != self._target:
            self._channel = grpc.insecure_channel(
                effect.target, options=GRPC_OPTIONS + STREAM_OPTIONS
            )
            self._methods = {}
            self._target = effect.target

    def _open_stream(self, effect: OpenStream) -> Any:
        method = self._channel.unary_stream(SERVICE + "OpenSession")
        stream: Any = method(effect.request.SerializeToString())
        clock = threading.Timer(effect.timeout, stream.cancel)
        clock.daemon = True
        clock.start()
        try:
            first = next(stream)
        except grpc.RpcError as error:
            raise _error_of(error) from None
        except StopIteration:
            raise NetworkError("the service ended the session at once") from None
        except BaseException:
            stream.cancel()
            raise
        finally:
            clock.cancel()
        self._stream = stream
        return read_reply("OpenSession", first)

    def _hang_up(self, effect: HangUp) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _method(self, name: str) -> Any:
        _fork.check(self._generation, "connection")
        channel = self._channel
        if channel is None:
            raise InvalidStateError("the connection was closed")
        method = self._methods.get(name)
        if method is None:
            make = channel.stream_unary if name in STREAMED else channel.unary_unary
            method = self._methods[name] = make(SERVICE + name)
        return method

    def _ask(self, method: str, request: Any, timeout: float | None) -> Any:
        """Call and wait; an exception in here (Ctrl-C) drops the call, which withdraws it."""
        call = self._method(method)
        try:
            reply = call(request, timeout=timeout, metadata=self._metadata)
        except (grpc.RpcError, ValueError) as error:
            if self._channel is None:  # gRPC raises ValueError for a channel that was closed
                raise InvalidStateError("the connection was closed during the call") from None
            if isinstance(error, ValueError):
                raise
            raise _error_of(error) from None
        return read_reply(method, reply)


def _error_of(error: Any) -> Exception:
    return error_of_status(error.code().name, error.details() or "", error.trailing_metadata())
