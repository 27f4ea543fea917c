"""The broker's end of a worker's control socket: what it is told, and what it says."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol

from loader_service.broker.refusal import Refusal
from loader_service.broker.waiting import writable
from loader_service.worker.control import (
    HEAD,
    LONGEST_FROM_WORKER,
    BadMessage,
    Message,
    unpack_fields,
    unpack_head,
)
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import failure_from_values

CLOSING_SECONDS = 0.5
"""From the end of a worker's sockets to its death, if it ends by itself."""
RECEIVE_BYTES = 256 << 10
MESSAGES_WAITING = 2
"""More than a worker ever has to say at once."""

WORKER_MAY_SAY = frozenset(
    {
        Cause.INVALID_INPUT,
        Cause.INVALID_MODEL,
        Cause.UNSUPPORTED,
        Cause.LIMIT,
        Cause.OUT_OF_MEMORY,
        Cause.FAILED,
        Cause.INTERNAL,
    }
)
"""What a living worker can know of itself; every other cause is the broker's or the kernel's."""


class Speaker(Protocol):
    """The worker at the other end, as its control socket needs it."""

    serving: bool
    answers: frozenset[Message]
    """Kinds of messages that go to `answered`."""

    @property
    def lost(self) -> Failure | None:
        """Why it ended, or None while it lives."""

    def kill(self, reason: Failure) -> None:
        """End it."""

    async def end(self, reason: Failure) -> Failure:
        """End it and wait; returns the reason on record."""

    async def verdict(self) -> Failure:
        """Wait until it is dead; returns why."""

    def heard(self, kind: Message) -> None:
        """Take note of a message that has come."""

    def answered(self, kind: Message, payload: bytes) -> None:
        """Take a message about one of several models; raises BadMessage."""

    def pong(self, payload: bytes) -> None:
        """Take the answer to a ping; raises BadMessage."""


class Exchange(Protocol):
    """What a worker may ask for while it loads its model, and what it is given."""

    async def took(self, kind: Message, payload: bytes) -> Iterable[bytes]:
        """Take one of `EXCHANGED`; returns the messages that answer it. Raises BadMessage."""

    def close(self) -> None:
        """Forget what is under way."""


EXCHANGED = frozenset({Message.WANTED, Message.COMPILED, Message.COMPILED_PART})


class Control:
    """One worker's messages. A bad one ends the worker."""

    def __init__(self, control: socket.socket, worker: Speaker) -> None:
        """Take over the socket; nothing is read before `begin`."""
        self._loop = asyncio.get_running_loop()
        self._socket = control
        # Not to hold it, as it holds this: dead workers would wait for the garbage collector.
        self._worker: Speaker = weakref.proxy(worker)
        self._messages: asyncio.Queue[tuple[Message, bytes] | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None
        self._received = bytearray()
        self._sending = False
        self.exchange: Exchange | None = None

    def begin(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())

    def when_read(self, call: Callable[[], None]) -> None:
        """Call back once all is read that a dead worker said; at once if nothing is awaited."""
        if self._reading is None or self._reading.done():
            call()
        else:
            self._reading.add_done_callback(lambda _: call())

    def stop_reading(self) -> None:
        """Read no more, of a worker that has been judged."""
        if self._reading is not None:
            self._reading.cancel()

    def say_now(self, data: bytes) -> None:
        """Send without waiting; raises OSError for a worker that does not read."""
        self._socket.send(data)

    async def expect(self, *kinds: Message) -> dict[str, object]:
        """Wait for a message of one of `kinds`.

        Raises Refusal with the worker's FAILED message, or with the verdict on its death.
        """
        item = await self._messages.get()
        self._end_exchange()
        if item is None:
            self._messages.put_nowait(None)
            raise Refusal(await self._worker.verdict())
        kind, payload = item
        try:
            fields = unpack_fields(payload)
        except BadMessage as error:
            raise Refusal(await self._worker.end(broken(error))) from None
        if kind is Message.FAILED:
            raise Refusal(failure_reported(fields))
        if kind not in kinds:
            reason = Failure(Cause.PROTOCOL_VIOLATION, f"the worker sent {kind.name} unasked")
            raise Refusal(await self._worker.end(reason))
        return fields

    async def send(self, data: bytes) -> None:
        """Send all of it; waits while the worker is behind. Raises Refusal if it has gone."""
        await self._sent(self._loop.sock_sendall(self._socket, data))

    async def send_file(self, descriptor: int, start: int, length: int) -> None:
        """Send so many bytes of a file, which the kernel moves by itself; else as `send`."""
        await self._sent(self._send_file(descriptor, start, length))

    async def _send_file(self, descriptor: int, start: int, length: int) -> None:
        end = start + length
        while start < end:
            try:
                start += _moved(self._socket, descriptor, start, end - start)
            except BlockingIOError:
                await writable(self._socket)
            except ConnectionError:
                raise
            except OSError as error:
                # The file's fault. The worker would wait for its bytes in vain.
                fault = Failure(Cause.INTERNAL, f"the held bytes cannot be sent: {error}")
                raise Refusal(await self._worker.end(fault)) from None

    async def _sent(self, sending: Coroutine[None, None, object]) -> None:
        self._sending = True
        try:
            await sending
        except OSError:
            # A worker that failed early has said why: that waits among its messages.
            await self.expect()
        finally:
            self._sending = False
            self.close_if_over()

    async def _read(self) -> None:
        """Sort the worker's messages until the socket ends; a bad one ends the worker.

        What a worker said before it died is read although it is dead.
        """
        try:
            while True:
                kind, length = unpack_head(await self._take(HEAD.size), LONGEST_FROM_WORKER)
                payload = await self._take(length)
                if kind is Message.PONG:
                    self._worker.pong(payload)
                elif kind in self._worker.answers and self._worker.serving:
                    self._worker.answered(kind, payload)
                elif kind in EXCHANGED and self.exchange is not None and not self._worker.serving:
                    # Nothing else is read before it has its answer; its load has a deadline.
                    for data in await self.exchange.took(kind, payload):
                        await self._loop.sock_sendall(self._socket, data)
                elif (
                    kind < Message.READY
                    or self._worker.serving
                    or self._messages.qsize() >= MESSAGES_WAITING
                ):
                    raise BadMessage(f"{kind.name} may not come from a worker now")
                else:
                    # Read when they are wanted: until then they need no more memory than they are.
                    self._messages.put_nowait((kind, payload))
                    self._worker.heard(kind)
        except BadMessage as error:
            self._worker.kill(broken(error))
        except (EOFError, OSError):
            # A worker without a control socket cannot be watched. One that ends properly is dead
            # before this comes.
            closed = Failure(Cause.PROTOCOL_VIOLATION, "the worker closed its control socket")
            self._loop.call_later(CLOSING_SECONDS, self._worker.kill, closed)
        finally:
            self._end_exchange()
            self._messages.put_nowait(None)
            self._loop.call_soon(self.close_if_over)

    def _end_exchange(self) -> None:
        """Let the worker ask for nothing more, and hold nothing more of what it asked for."""
        if self.exchange is not None:
            self.exchange.close()
            self.exchange = None

    async def _take(self, count: int) -> bytes:
        """Receive exactly so many bytes; memory grows with what comes. Raises EOFError, OSError."""
        while len(self._received) < count:
            piece = await self._loop.sock_recv(self._socket, RECEIVE_BYTES)
            if not piece:
                raise EOFError
            self._received += piece
        data = bytes(memoryview(self._received)[:count])
        del self._received[:count]
        return data

    def close_if_over(self) -> None:
        """Close the socket of a dead worker once nobody uses it."""
        # Not while somebody waits on it: closing a descriptor wakes nobody.
        unread = self._reading is not None and not self._reading.done()
        if self._is_over() and not unread and not self._sending:
            self._socket.close()

    def _is_over(self) -> bool:
        try:
            return self._worker.lost is not None
        except ReferenceError:  # dead, and forgotten by everybody
            return True


def broken(error: BadMessage) -> Failure:
    """Say of a worker that it has sent what cannot be."""
    return Failure(Cause.PROTOCOL_VIOLATION, f"the worker broke the protocol: {error}")


def failure_reported(fields: dict[str, object]) -> Failure:
    """Read a FAILED message; one that cannot be read, or says too much, is a plain failure."""
    try:
        failure = failure_from_values(fields)
    except ValueError:
        failure = None
    if failure is None or failure.cause not in WORKER_MAY_SAY:
        return Failure(Cause.PROTOCOL_VIOLATION, "the worker's report of a failure cannot be")
    return failure


def _moved(sock: socket.socket, descriptor: int, start: int, length: int) -> int:
    """Send some bytes of a file; returns how many. Raises OSError, also at the file's end."""
    sent = os.sendfile(sock.fileno(), descriptor, start, length)
    if not sent:
        raise OSError("the file ends before that")
    return sent
