"""The control plane for threads: one gRPC channel, called so that no interruption harms it.

gRPC is imported where it is used: a program that starts a private service has it imported while
that starts (see ``_embedded``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from google.protobuf.message import Message

from . import _fork
from ._messages import SERVICE, SESSION_KEY, error_of_status, read_reply
from ._tls import Tls, open_channel
from ._uninterrupted import detached, uninterrupted
from .errors import InvalidStateError, NetworkError

GRPC_OPTIONS = [
    # What is received is capped by the limits in force, not by gRPC's 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A service that was started anew must not inherit a dead connection's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
NOTIFY_SECONDS = 10.0
STREAMED = frozenset({"Load", "Inspect"})

Unclaimed = Callable[[Message], object]


class BlockingControl:
    """One gRPC channel; thread-safe."""

    def __init__(self) -> None:
        self._target = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._stream: Any = None
        self._generation = _fork.current

    def dial(self, target: str, token: str, *, tls: Tls | None = None) -> None:
        """Make the channel, or only change the token."""
        import grpc
        from grpc.experimental import ChannelOptions

        self._metadata = ((SESSION_KEY, token),) if token else ()
        if target != self._target:
            # The stream that holds a relayed session open must not keep a thread inside gRPC: see
            # forks in _uninterrupted.
            options = [*GRPC_OPTIONS, (ChannelOptions.SingleThreadedUnaryStream, 1)]
            made = uninterrupted(lambda: open_channel(grpc, target, tls, options), _nothing)
            stream, self._stream = self._stream, None
            left, self._channel = self._channel, made
            self._methods = {}  # after the channel: see _start
            self._target = target
            if left is not None:
                detached(lambda: _end(left, stream))

    def forget(self) -> None:
        """Let the next `dial` make a channel, whatever its target is."""
        self._target = ""

    def ask(
        self,
        method: str,
        request: bytes | Iterable[bytes],
        timeout: float | None,
        unclaimed: Unclaimed | None = None,
    ) -> Message:
        """Call and wait for the reply.

        An exception in the meantime (Ctrl-C) withdraws the call; a reply that came all the same is
        given to `unclaimed`.
        """
        import grpc

        attempt = _Attempt(lambda: self._start(method, request, timeout))
        channel = self._channel

        def withdraw() -> None:
            reply = attempt.withdraw()
            if reply is not None and unclaimed is not None:
                unclaimed(read_reply(method, reply))

        try:
            return read_reply(method, uninterrupted(attempt.wait, withdraw))
        except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
            if self._channel is None:  # gRPC raises ValueError for a channel that was closed
                raise InvalidStateError("the connection was closed during the call") from None
            if isinstance(error, grpc.RpcError) and error.code() is not grpc.StatusCode.CANCELLED:
                raise _error_of(error) from None
            if self._channel is not channel:  # it was closed because another one took its place
                raise NetworkError("the Model Loader service ended during the call") from None
            if isinstance(error, grpc.RpcError):
                raise _error_of(error) from None
            raise

    def notify(self, method: str, request: bytes) -> None:
        """Start a call whose reply nobody waits for."""
        detached(_Attempt(lambda: self._start(method, request, NOTIFY_SECONDS)).wait)

    def open_stream(self, request: bytes, timeout: float) -> Message:
        """Call OpenSession and keep its stream; gives the first event."""
        import grpc

        kept: list[Any] = []
        late = threading.Event()

        def end_late() -> None:
            late.set()
            kept[0].cancel()

        def open_and_read() -> bytes:
            stream: Any = self._channel.unary_stream(SERVICE + "OpenSession")(request)
            kept.append(stream)
            clock = threading.Timer(timeout, end_late)
            clock.daemon = True
            clock.start()
            try:
                first: bytes = next(stream)
                return first
            finally:
                clock.cancel()

        def give_up() -> None:
            for stream in kept:
                stream.cancel()

        try:
            first = uninterrupted(open_and_read, give_up)
        except grpc.RpcError as error:
            if late.is_set():  # gRPC would say that the caller had withdrawn the call
                raise NetworkError("the service did not open a session in time") from None
            raise _error_of(error) from None
        except StopIteration:
            raise NetworkError("the service ended the session at once") from None
        self._stream = kept[0]
        return read_reply("OpenSession", first)

    def hang_up(self) -> None:
        """End the stream and the channel."""
        stream, self._stream = self._stream, None
        channel, self._channel = self._channel, None
        uninterrupted(lambda: _end(channel, stream), _nothing)

    def _start(self, name: str, request: bytes | Iterable[bytes], timeout: float | None) -> Any:
        _fork.check(self._generation, "connection")
        methods = (
            self._methods
        )  # before the channel: none of an older one is kept among the newer's
        channel = self._channel
        if channel is None:
            raise InvalidStateError("the connection was closed")
        method = methods.get(name)
        if method is None:
            make = channel.stream_unary if name in STREAMED else channel.unary_unary
            method = methods[name] = make(SERVICE + name)
        data = request if isinstance(request, bytes) else iter(request)
        return method.future(data, timeout=timeout, metadata=self._metadata)


class _Attempt:
    """One call; started and awaited in one thread, perhaps withdrawn from another."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._future: Any = None
        self._started = threading.Event()

    def wait(self) -> bytes:
        """Start the call and wait for its reply."""
        try:
            self._future = self._start()
        finally:
            self._started.set()
        try:
            reply: bytes = self._future.result()
        except BaseException:
            self._future = None  # it is the error: they would hold each other
            raise
        return reply

    def withdraw(self) -> bytes | None:
        """Cancel the call; gives the reply if it has come before that."""
        import grpc

        self._started.wait()
        future = self._future
        if future is None:
            return None
        future.cancel()
        try:
            reply: bytes = future.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            return None
        return reply


def _error_of(error: Any) -> Exception:
    return error_of_status(error.code().name, error.details() or "", error.trailing_metadata())


def _end(channel: Any, stream: Any) -> None:
    import grpc

    if channel is not None:
        channel.close()
    # Only who reads a stream of this kind to its end gives its connection back.
    with suppress(grpc.RpcError):
        for _ in stream or ():
            continue


def _nothing() -> None:
    """Withdraw what needs no withdrawing."""
