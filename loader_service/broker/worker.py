"""The broker's handle of one worker process: its messages, its pings, its death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from loader_service.broker.last_words import LastWords
from loader_service.broker.refusal import Refusal
from loader_service.broker.verdict import Evidence, verdict
from loader_service.sandbox.cgroup import Group
from loader_service.worker.control import (
    HEAD,
    LONGEST_FROM_WORKER,
    MODEL_PIECE,
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
    ) -> None:
        self.pid = pid
        self.channel: socket.socket | None = channel
        self.group = group
        self.limits = limits
        self.calls = 0
        self.serving = False
        """Whether the model is loaded: until then the load's own deadline holds, and no ping."""
        self.layers: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        self.ended: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._control = control
        self._last_words = last_words
        self._on_end = on_end
        self._killed_for: Failure | None = None
        self._messages: asyncio.Queue[tuple[Message, dict[str, object]] | None] = asyncio.Queue(16)
        self._ping_number = 0
        self._pinged_at: float | None = None
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._exited)
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def begin(self, go: Go) -> None:
        """Send GO and wait until the worker has locked itself down."""
        try:
            reader, self._writer = await asyncio.open_connection(sock=self._control, limit=1 << 20)
        except (OSError, ValueError):
            raise Refusal(await self.ended) from None
        self._reading = asyncio.create_task(self._read(reader))
        await self._send(pack_fields(Message.GO, go.to_fields()))
        fields = await self.expect(Message.READY)
        layers, missing = fields.get("layers"), fields.get("missing")
        if isinstance(layers, list) and isinstance(missing, dict):
            self.layers = tuple(printable(str(layer), 64) for layer in layers[:64])
            self.missing = {
                printable(str(layer), 64): printable(str(reason), 200)
                for layer, reason in list(missing.items())[:64]
            }

    async def send_model(self, chunk: bytes) -> None:
        """Pass on a part of the model; waits while the worker is behind."""
        for start in range(0, len(chunk), MODEL_PIECE):
            await self._send(pack(Message.MODEL, chunk[start : start + MODEL_PIECE]))

    async def end_model(self) -> None:
        """Say that the model is complete."""
        await self._send(pack(Message.MODEL_END))

    async def expect(self, *kinds: Message) -> dict[str, object]:
        """Wait for a message of one of `kinds`.

        Raises Refusal with the worker's FAILED message, or with the verdict on its death.
        """
        item = await self._messages.get()
        if item is None:
            self._messages.put_nowait(None)
            raise Refusal(await self.ended)
        kind, fields = item
        if kind is Message.FAILED:
            raise Refusal(_failure(fields))
        if kind not in kinds:
            self.kill(Failure(Cause.PROTOCOL_VIOLATION, f"the worker sent {kind.name} unasked"))
            raise Refusal(await self.ended)
        return fields

    async def _send(self, data: bytes) -> None:
        if self._writer is None:
            raise Refusal(await self.ended)
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            # A worker that failed early has said why: the reason waits among the messages.
            return

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Sort the worker's messages until the socket ends; a bad one ends the worker."""
        try:
            while True:
                kind, length = unpack_head(await reader.readexactly(HEAD.size), LONGEST_FROM_WORKER)
                payload = await reader.readexactly(length)
                if kind is Message.PONG:
                    self._pong(payload)
                elif kind < Message.READY or self._messages.full():
                    raise BadMessage(f"{kind.name} may not come from a worker now")
                else:
                    self._messages.put_nowait((kind, unpack_fields(payload)))
        except BadMessage as error:
            self.kill(Failure(Cause.PROTOCOL_VIOLATION, f"the worker broke the protocol: {error}"))
        except (asyncio.IncompleteReadError, ConnectionError):
            # A worker without a control socket cannot be watched. One that ends properly is dead
            # at once, and the verdict then ignores this record.
            self._loop.call_later(0.5, self._kill_if_alive)
        if self._messages.full():
            self._messages.get_nowait()
        self._messages.put_nowait(None)

    def _kill_if_alive(self) -> None:
        self.kill(Failure(Cause.PROTOCOL_VIOLATION, "the worker closed its control socket"))

    def _pong(self, payload: bytes) -> None:
        if len(payload) != PONG.size:
            raise BadMessage("a pong of the wrong size")
        number, calls = PONG.unpack(payload)
        if number == self._ping_number:
            self._pinged_at = None
            self.calls = calls

    def ping(self) -> None:
        """Look whether the worker answers: one that is silent for too long is ended."""
        if self._writer is None or not self.serving or self.ended.done():
            return
        now = time.monotonic()
        seconds = self.limits.compute_seconds or 0
        if self._pinged_at is None:
            self._ping_number += 1
            self._pinged_at = now
            try:
                self._writer.write(pack(Message.PING, PING.pack(self._ping_number)))
            except ConnectionError:
                return
        elif now - self._pinged_at > seconds:
            self.kill(
                Failure(
                    Cause.TIMEOUT,
                    f"the computation took longer than compute_seconds = {seconds:g}",
                    "compute_seconds",
                    now - self._pinged_at,
                    seconds,
                )
            )

    def usage(self) -> Usage:
        """Return what the worker uses now; zeros once it is dead."""
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            memory = self.group.memory_usage() if self.group else process.memory_info().rss
        except psutil.Error:
            return Usage(0, 0)
        return Usage(memory, times.user + times.system)

    def kill(self, reason: Failure) -> None:
        """End the process; the first reason stays on record."""
        if self.ended.done():
            return
        if self._killed_for is None:
            self._killed_for = reason
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exited(self) -> None:
        """Reap the process and judge."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        evidence = Evidence(
            wait_status=status,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            oom_kills=self.group.oom_kills() if self.group else 0,
            memory_bytes=self.limits.memory_bytes or 0,
            cpu_limit_seconds=self.limits.cpu_seconds,
            killed_for=self._killed_for,
            last_words=self._last_words.text(),
        )
        self.ended.set_result(verdict(evidence))
        self._last_words.close()
        self.drop_channel()
        if self._writer is not None:
            self._writer.close()
        else:
            self._control.close()
        self._on_end(self)

    def drop_channel(self) -> None:
        """Close the broker's copy of the client's end; after that, only the client holds it."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def _failure(fields: dict[str, object]) -> Failure:
    """Read a FAILED message; one that cannot be read is a plain failure."""
    try:
        return Failure(
            Cause(str(fields["cause"])),
            printable(str(fields["message"])),
            printable(str(fields["limit"]), 64),
            float(str(fields["value"])),
            float(str(fields["maximum"])),
        )
    except (KeyError, ValueError):
        return Failure(
            Cause.PROTOCOL_VIOLATION, "the worker's report of a failure was not readable"
        )
