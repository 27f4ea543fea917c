"""What the protocol core asks its driver to do.

The core (`_session`, `_load`, `_model_core`) is generators that yield these and get the result
sent back; a driver carries them out, blocking or on an event loop. Nothing else does I/O.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from model_loader_wire.exchange import Exchange

from ._tls import Tls
from .errors import TimeoutError

Result = TypeVar("Result")

Steps = Generator["Effect", Any, Result]
"""A piece of the core: yields effects, returns its result."""


class DeadlinePassed(Exception):
    """The driver's clock reached an effect's deadline; the effect may be carried on later."""


class ChannelEnded(Exception):
    """The other end of a direct channel is gone."""


@dataclass(slots=True)
class Dial:
    """Make a gRPC channel to a socket; later calls use it and name the session by its token.

    A second one for the same target changes the token only.
    """

    target: str
    token: str
    tls: Tls | None = None
    """For targets of the network."""


@dataclass(slots=True)
class Forget:
    """Let the next ``Dial`` make a channel, though its target be the same.

    One that found its service gone would wait before it tries again, and then reach whoever listens
    there by that time.
    """


@dataclass(slots=True)
class OpenStream:
    """Call OpenSession; gives the first event and keeps the stream open until ``HangUp``.

    An asyncio driver calls `told` with each event after that, and with None at the stream's end.
    """

    request: Message
    timeout: float
    told: Callable[[Any], None]


@dataclass(slots=True)
class HangUp:
    """End the stream and the gRPC channel, if there are any. Never fails."""


@dataclass(slots=True)
class Call:
    """Call a method and give its reply; raises an error of our tree."""

    method: str
    request: Message
    timeout: float | None


@dataclass(slots=True)
class Notify:
    """Start a call whose reply nobody waits for. Never fails."""

    method: str
    request: Message


@dataclass(slots=True)
class Upload:
    """Call a method that takes a stream; `requests` may block, `progressed` follows each one.

    `unclaimed` says what to tell the service if the reply comes after the caller was interrupted.
    """

    method: str
    requests: Iterator[Message]
    progressed: Callable[[], None]
    timeout: float | None
    unclaimed: Callable[[Any], Notify] | None


@dataclass(slots=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(slots=True)
class InThread:
    """Run a function that blocks for a short while; gives its result."""

    function: Callable[[], object]


@dataclass(slots=True)
class Adopt:
    """Make the driver's kind of direct channel from a socket; `ended` is called, at most once and
    from the event loop, when an asyncio driver sees the idle channel end.
    """

    socket: socket.socket
    ended: Callable[[], None]


@dataclass(slots=True)
class Transfer:
    """Carry an exchange on until it is done. Raises DeadlinePassed, ChannelEnded or BadFrame.

    `ahead`: the exchange after it, of which as much as the channel takes at once is sent before the
    wait for the reply.
    """

    channel: Any
    exchange: Exchange
    deadline: float | None
    ahead: Exchange | None = None


@dataclass(slots=True)
class Exclusive:
    """Run steps while holding a turn (the driver's kind of lock, made by ``make_turn``).

    Raises TimeoutError if the turn does not come in time.
    """

    turn: Any
    steps: Steps[Any]
    deadline: float | None

    def late(self) -> TimeoutError:
        """Make the error for a turn that did not come."""
        return TimeoutError(
            "another call on this model did not end in time; the model is still usable"
        )


Effect = (
    Dial
    | Forget
    | OpenStream
    | HangUp
    | Call
    | Notify
    | Upload
    | Pause
    | InThread
    | Adopt
    | Transfer
    | Exclusive
)
