"""The broker's handle of one worker process: its messages, its pings, its death."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

from loader_service.broker.last_words import LastWords
from loader_service.broker.refusal import Refusal
from loader_service.broker.verdict import Evidence, verdict
from loader_service.sandbox.cgroup import Group
from loader_service.worker.control import (
    HEAD,
    LONGEST_FROM_WORKER,
    PONG,
    BadMessage,
    Message,
    pack,
    pack_fields,
    unpack_fields,
    unpack_head,
)
from loader_service.worker.orders import Go
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.limits import Limits

PING = struct.Struct("<Q")
PING_SLACK_SECONDS = 1
"""A worker looks for pings between calls, at most every quarter second: so much later than
``compute_seconds`` an answer may come although no single computation took longer."""
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

log = logging.getLogger("model_loader.worker")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker uses by the kernel's count."""

    memory_bytes: int
    cpu_seconds: float


class Worker:
    """A living or dead worker. Whatever it says is checked; why it ended is never its word."""

    def __init__(
        self,
        pid: int,
        control: socket.socket,
        channel: socket.socket,
        last_words: LastWords,
        group: Group | None,
        limits: Limits,
        on_end: Callable[[Worker], None],
        verdict_seconds: float,
    ) -> None:
        """Take over a child process that waits for GO, with everything that belongs to it."""
        self.pid = pid
        self.channel: socket.socket | None = channel
        self.group = group
        self.limits = limits
        self.calls = 0
        self.layers: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        self.serving = False
        """Whether it answers pings: not yet while it receives and loads its model."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Failure] = self._loop.create_future()
        self._control = control
        self._last_words = last_words
        self._on_end = [on_end]
        self._verdict_seconds = verdict_seconds
        self._killed_for: Failure | None = None
        self._messages: asyncio.Queue[tuple[Message, dict[str, object]] | None] = asyncio.Queue()
        self._ping_number = 0
        self._pinged_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._received = bytearray()
        self._sending = False
        self._process = psutil.Process(pid)
        self._inherited_bytes = self._own_bytes()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._exited)

    @property
    def lost(self) -> Failure | None:
        """Why the process ended, or None while it lives."""
        return self._ended.result() if self._ended.done() else None

    def when_ended(self, call: Callable[[Worker], None]) -> None:
        """Call back once the process is dead; at once if it is."""
        if self._ended.done():
            call(self)
        else:
            self._on_end.append(call)

    async def wait(self, seconds: float) -> Failure | None:
        """Wait for the death so long; returns why, or None for a worker that lives on."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self.lost

    async def verdict(self) -> Failure:
        """Wait until a dying process is dead, and say why; one that does not die is given up."""
        lost = await self.wait(self._verdict_seconds)
        if lost is None:
            log.error("worker %d does not end", self.pid)
            lost = self._killed_for or Failure(Cause.INTERNAL, "the worker does not end")
        return replace(lost, model_lost=True)

    async def end(self, reason: Failure) -> Failure:
        """Kill the process and wait until it is dead; returns the reason on record."""
        self.kill(reason)
        return await self.verdict()

    def kill(self, reason: Failure) -> None:
        """End the process; the first reason stays on record."""
        if self._ended.done():
            return
        if self._killed_for is None:
            self._killed_for = reason
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def begin(self, go: Go) -> None:
        """Send GO and wait until the worker has locked itself down; raises Refusal."""
        if self.lost is not None:
            raise Refusal(self.lost)
        self._reading = asyncio.create_task(self._read())
        await self._send(pack_fields(Message.GO, go.to_fields()))
        fields = await self.expect(Message.READY)
        layers, missing = fields.get("layers"), fields.get("missing")
        if isinstance(layers, list) and isinstance(missing, dict):
            self.layers = tuple(printable(str(layer), 64) for layer in layers[:64])
            self.missing = {
                printable(str(layer), 64): printable(str(reason), 200)
                for layer, reason in list(missing.items())[:64]
            }

    async def send_model(self, piece: memoryview) -> None:
        """Pass on at most MODEL_PIECE bytes of the model; waits while the worker is behind.

        Raises Refusal if the worker has gone.
        """
        await self._send(pack(Message.MODEL, piece))

    async def end_model(self) -> None:
        """Say that the model is complete; raises Refusal if the worker has gone."""
        await self._send(pack(Message.MODEL_END))

    async def expect(self, *kinds: Message) -> dict[str, object]:
        """Wait for a message of one of `kinds`.

        Raises Refusal with the worker's FAILED message, or with the verdict on its death.
        """
        item = await self._messages.get()
        if item is None:
            self._messages.put_nowait(None)
            raise Refusal(await self.verdict())
        kind, fields = item
        if kind is Message.FAILED:
            raise Refusal(_failure(fields))
        if kind not in kinds:
            reason = Failure(Cause.PROTOCOL_VIOLATION, f"the worker sent {kind.name} unasked")
            raise Refusal(await self.end(reason))
        return fields

    async def _send(self, data: bytes) -> None:
        self._sending = True
        try:
            await self._loop.sock_sendall(self._control, data)
        except OSError:
            # A worker that failed early has said why: that waits among its messages.
            await self.expect()
        finally:
            self._sending = False
            self._close_control_if_over()

    async def _read(self) -> None:
        """Sort the worker's messages until the socket ends; a bad one ends the worker.

        What a worker said before it died is read although it is dead.
        """
        try:
            while True:
                kind, length = unpack_head(await self._take(HEAD.size), LONGEST_FROM_WORKER)
                payload = await self._take(length)
                if kind is Message.PONG:
                    self._pong(payload)
                elif (
                    kind < Message.READY
                    or self.serving
                    or self._messages.qsize() >= MESSAGES_WAITING
                ):
                    raise BadMessage(f"{kind.name} may not come from a worker now")
                else:
                    self._messages.put_nowait((kind, unpack_fields(payload)))
        except BadMessage as error:
            self.kill(Failure(Cause.PROTOCOL_VIOLATION, f"the worker broke the protocol: {error}"))
        except (EOFError, OSError):
            # A worker without a control socket cannot be watched. One that ends properly is dead
            # before this comes.
            closed = Failure(Cause.PROTOCOL_VIOLATION, "the worker closed its control socket")
            self._loop.call_later(CLOSING_SECONDS, self.kill, closed)
        self._messages.put_nowait(None)
        self._loop.call_soon(self._close_control_if_over)

    async def _take(self, count: int) -> bytes:
        """Receive exactly so many bytes; memory grows with what comes. Raises EOFError, OSError."""
        while len(self._received) < count:
            piece = await self._loop.sock_recv(self._control, RECEIVE_BYTES)
            if not piece:
                raise EOFError
            self._received += piece
        data = bytes(memoryview(self._received)[:count])
        del self._received[:count]
        return data

    def _close_control_if_over(self) -> None:
        # Not while somebody waits on it: closing a descriptor wakes nobody.
        unread = self._reading is not None and not self._reading.done()
        if self._ended.done() and not unread and not self._sending:
            self._control.close()

    def _pong(self, payload: bytes) -> None:
        if len(payload) != PONG.size:
            raise BadMessage("a pong of the wrong size")
        number, calls = PONG.unpack(payload)
        if number != self._ping_number or self._pinged_at is None:
            raise BadMessage("a pong without a ping")
        self._pinged_at = None
        self.calls = calls

    def ping(self) -> None:
        """Look whether a serving worker answers: one that is silent for too long is ended."""
        if not self.serving or self._ended.done():
            return
        now = time.monotonic()
        seconds = self.limits.compute_seconds or 0
        if self._pinged_at is None:
            self._ping_number += 1
            self._pinged_at = now
            # One that has stopped reading does not answer: that is noticed below.
            with suppress(OSError):
                self._control.send(pack(Message.PING, PING.pack(self._ping_number)))
        elif now - self._pinged_at > seconds + PING_SLACK_SECONDS:
            self.kill(
                Failure(
                    Cause.TIMEOUT,
                    f"the computation took longer than compute_seconds = {seconds:g}",
                    "compute_seconds",
                    now - self._pinged_at,
                    seconds,
                )
            )

    def hold_memory(self) -> None:
        """End the worker if it has more memory of its own than it may; for hosts without cgroups.

        Like RLIMIT_DATA, which stops most before, it counts from what the zygote already had.
        """
        used, maximum = self._own_bytes() - self._inherited_bytes, self.limits.memory_bytes or 0
        if used > maximum:
            message = f"the worker needed more memory than memory_bytes = {maximum} allow"
            self.kill(Failure(Cause.OUT_OF_MEMORY, message, "memory_bytes", used, maximum))

    def _own_bytes(self) -> int:
        """Resident memory that is no file's; shared with the zygote as long as none writes it."""
        try:
            memory = self._process.memory_info()
        except psutil.Error:
            return 0
        return int(memory.rss - memory.shared)

    def usage(self) -> Usage:
        """Return what the worker uses now; zeros once it is dead."""
        try:
            times = self._process.cpu_times()
            memory = self.group.memory_usage() if self.group else None
            if memory is None:
                memory = int(self._process.memory_info().rss)
        except (psutil.Error, OSError):
            return Usage(0, 0)
        return Usage(memory, times.user + times.system)

    def drop_channel(self) -> None:
        """Close the broker's copy of the client's end; after that, only the client holds it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def _exited(self) -> None:
        """Reap the process and judge."""
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._over(Failure(Cause.INTERNAL, "nobody saw how the worker ended", model_lost=True))
            return
        if pid != 0:
            self._over(verdict(self._evidence(status, usage)))

    def _evidence(self, status: int, usage: resource.struct_rusage) -> Evidence:
        try:
            oom_kills = self.group.oom_kills() if self.group else 0
        except (OSError, ValueError):
            oom_kills = 0
        return Evidence(
            wait_status=status,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            oom_kills=oom_kills,
            memory_bytes=self.limits.memory_bytes or 0,
            cpu_limit_seconds=self.limits.cpu_seconds,
            killed_for=self._killed_for,
            last_words=self._last_words.text(),
        )

    def _over(self, lost: Failure) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(lost)
        self._last_words.close()
        self.drop_channel()
        self._close_control_if_over()
        waiting, self._on_end = self._on_end, []
        for call in waiting:
            call(self)


def _failure(fields: dict[str, object]) -> Failure:
    """Read a FAILED message; one that cannot be read, or says too much, is a plain failure."""
    try:
        failure = Failure(
            Cause(str(fields["cause"])),
            printable(str(fields["message"])),
            printable(str(fields["limit"]), 64),
            float(str(fields["value"])),
            float(str(fields["maximum"])),
        )
    except (KeyError, ValueError):
        failure = None
    if failure is None or failure.cause not in WORKER_MAY_SAY:
        return Failure(Cause.PROTOCOL_VIOLATION, "the worker's report of a failure cannot be")
    return failure
