"""The broker's handle of a host: a worker that holds the models of one origin."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import psutil

from loader_service.broker.host_limits import HostLimits
from loader_service.broker.last_words import LastWords
from loader_service.broker.pings import PING_SLACK_SECONDS
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.seat import Seat, Stage
from loader_service.broker.worker import Worker
from loader_service.sandbox.cgroup import Group
from loader_service.sandbox.policy import CPU_GRACE_SECONDS
from loader_service.worker.control import FINISH_PAYLOAD, NUMBER, PONG, BadMessage, Message, pack
from loader_service.worker.orders import Go
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits

MOST_COUNTED = 2**64 - 1


class Host(Worker):
    """A worker with several models: each has a seat, and what ends the process ends them all."""

    answers = frozenset({Message.LOADED, Message.FAILED, Message.CLOSED, Message.GONE})

    def __init__(
        self,
        pid: int,
        control: socket.socket,
        channels: Sequence[socket.socket],
        last_words: LastWords,
        group: Group | None,
        limits: Limits,
        on_end: Callable[[Worker], None],
        verdict_seconds: float,
    ) -> None:
        """Take over a child process that waits for GO, with the clients' ends of its channels."""
        super().__init__(
            pid, control, channels[0], last_words, group, limits, on_end, verdict_seconds
        )
        self.channel = None
        self._free = dict(enumerate(channels))
        self._seats: dict[int, Seat] = {}
        self._closing: set[int] = set()
        self._turn_to_say = asyncio.Lock()
        self._turn_to_load = asyncio.Lock()
        self._loading: Seat | None = None
        self._loaded_at = 0.0
        self._saying: set[asyncio.Task[None]] = set()
        self._host_limits = HostLimits(self)
        self.when_ended(self._all_over)

    @property
    def has_room(self) -> bool:
        """Whether another model can come: the process lives on, and has a channel left."""
        return self.lost is None and self._killed_for is None and bool(self._free)

    async def begin(self, go: Go) -> None:
        """Send GO and wait until the host has locked itself down; raises Refusal."""
        await super().begin(go)
        try:
            self._host_limits.begin(go)
        except (OSError, psutil.Error) as error:
            reason = Failure(Cause.UNAVAILABLE, f"the worker's limits cannot be read: {error}")
            raise Refusal(await self.end(reason)) from None
        self.serving = True

    def take_seat(self, limits: Limits, threads: int) -> Seat:
        """Make room for another model, in the limits, too; raises Refusal."""
        number = min(self._free)
        self._host_limits.add(number, limits, threads)
        try:
            self._host_limits.apply()
        except OSError as error:
            self._host_limits.remove(number)
            raise refuse(
                Cause.UNAVAILABLE, f"the worker's limits could not be raised: {error}"
            ) from None
        seat = self._seats[number] = Seat(self, number, self._free.pop(number), limits)
        return seat

    def share_of(self, go: Go) -> Go:
        """Tell a model's orders what makes allocations fail here: the limit of all together."""
        together = None if go.data_bytes is None else self.limits.memory_bytes
        return replace(go, data_bytes=together)

    def memory_used(self) -> int:
        """Bytes in use as its limit counts them."""
        used = None if self.group is None else self.group.memory_usage()
        return self._meter.own_bytes() if used is None else used

    def end_if_empty(self) -> None:
        """End a host that holds no model, as one is whose first model was refused."""
        if not any(seat.lost is None for seat in self._seats.values()):
            self.kill(Failure(Cause.CLOSED, "no model has come"))

    def leave(self, seat: Seat, reason: Failure) -> None:
        """End one model; the process ends with its last one."""
        others = [item for item in self._seats.values() if item.lost is None and item is not seat]
        if not others:
            self.kill(reason)
            return
        if not seat.reusable:
            seat.drop_channel()
        self._closing.add(seat.number)
        seat.over(replace(reason, model_lost=True))
        self._say_later(pack(Message.CLOSE, NUMBER.pack(seat.number)))

    async def say(self, message: bytes) -> None:
        """Send a message, whole even if the caller leaves meanwhile; raises Refusal."""
        await asyncio.shield(self._say_later(message))

    async def take_turn(self, seat: Seat) -> None:
        """Wait until no other model is being loaded; raises Refusal for one that is gone."""
        await self._turn_to_load.acquire()
        if seat.lost is None and seat.stage is Stage.ARRIVING:
            self._loading = seat
            return
        self._turn_to_load.release()
        await seat.expect()

    def answered(self, kind: Message, payload: bytes) -> None:
        """Hand on what the host says of one of its models; raises BadMessage."""
        if len(payload) < NUMBER.size:
            raise BadMessage(f"{kind.name} came without a number")
        (number,) = NUMBER.unpack_from(payload)
        seat = self._seats.get(number)
        if seat is None:
            raise BadMessage(f"{kind.name} came for no model")
        if kind in seat.said or (kind is Message.CLOSED and seat.number not in self._closing):
            raise BadMessage(f"{kind.name} may not come for this model now")
        seat.said.add(kind)
        if kind is not Message.GONE and self._loading is seat:
            self._loading = None
            self._loaded_at = time.monotonic()
            self._turn_to_load.release()
        if seat.number not in self._closing:
            seat.heard(kind, payload[NUMBER.size :])
        elif kind is Message.CLOSED:
            self._closed(seat)
        elif kind is Message.LOADED:
            # Given up meanwhile: the host will close the channel with the model.
            seat.drop_channel()

    def pong(self, payload: bytes) -> None:
        """Take the answer to a ping, with a count for each channel; raises BadMessage."""
        try:
            number, *counts = struct.unpack(f"<Q{len(payload) // 8 - 1}Q", payload)
        except struct.error:
            raise BadMessage("a pong of the wrong size") from None
        super().pong(PONG.pack(number, min(sum(counts), MOST_COUNTED)))
        for seat in self._seats.values():
            if seat.number < len(counts):
                seat.calls = counts[seat.number]

    def ping(self) -> None:
        """Look whether the host answers, and whether a limit can be lowered that had to stay.

        While it loads a model it may be silent for as long as that may take.
        """
        if not self.serving or self.lost is not None:
            return
        with suppress(OSError):
            self._host_limits.apply()
        self._hold_cpu_time()
        now = time.monotonic()
        if (ping := self._pings.ask(now)) is not None:
            self._say_later(pack(Message.PING, ping))
            return
        name, what, limits = "compute_seconds", "computation", self.limits
        if self._loading is not None:
            name, what, limits = "load_seconds", "load", self._loading.limits
        seconds: float = getattr(limits, name) or 0
        silent = min(self._pings.silence(now), now - self._loaded_at)
        if silent > seconds + PING_SLACK_SECONDS:
            message = f"the {what} took longer than {name} = {seconds:g}"
            self.kill(Failure(Cause.TIMEOUT, message, name, silent, seconds))

    def _hold_cpu_time(self) -> None:
        """End a host that lives on beyond the soft limit: the hard one is that of all it may hold.

        Only a process that handles the signal of the soft limit otherwise comes here.
        """
        maximum = self.limits.cpu_seconds
        if maximum is None:
            return
        used = self.usage().cpu_seconds
        if used > maximum + CPU_GRACE_SECONDS:
            message = f"the worker used up its CPU time, cpu_seconds = {maximum}"
            self.kill(Failure(Cause.CPU_TIME, message, "cpu_seconds", used, maximum))

    def _say_finish(self) -> None:
        self._say_later(pack(Message.FINISH, FINISH_PAYLOAD))

    def _closed(self, seat: Seat) -> None:
        """The host has forgotten a model: its memory and perhaps its channel are free."""
        self._closing.discard(seat.number)
        del self._seats[seat.number]
        if seat.channel is not None:
            self._free[seat.number], seat.channel = seat.channel, None
        self._host_limits.remove(seat.number)
        with suppress(OSError):
            self._host_limits.apply()

    def _say_later(self, message: bytes) -> asyncio.Task[None]:
        task = asyncio.create_task(self._say(message))
        self._saying.add(task)
        task.add_done_callback(self._said)
        return task

    async def _say(self, message: bytes) -> None:
        async with self._turn_to_say:
            if self.lost is not None:
                raise Refusal(self.lost)
            await self._control.send(message)

    def _said(self, task: asyncio.Task[None]) -> None:
        self._saying.discard(task)
        if not task.cancelled():
            # What is wrong with the host, its models are told otherwise.
            task.exception()

    def _may_end(self) -> bool:
        """Whether it had nothing left to do: a host ends only when its broker ends it."""
        return False

    def _all_over(self, _: Worker) -> None:
        """Tell all models of the end; it is held against the one that was being loaded, else all.

        Which model was computing only the process itself could say, and it is not believed.
        """
        assert self.lost is not None
        living = [seat for seat in self._seats.values() if seat.lost is None]
        lost = self.lost
        if len(living) > 1:
            note = f"in the process that held {len(living)} models of this origin"
            lost = replace(lost, message=f"{lost.message} ({note})")
        for seat in living:
            seat.suspect = (
                seat is self._loading if self._loading is not None else seat.stage is Stage.LOADED
            )
        if self._loading is not None:
            self._loading = None
            self._turn_to_load.release()
        for seat in self._seats.values():
            seat.over(lost)
            seat.drop_channel()
        for channel in self._free.values():
            channel.close()
        self._free.clear()
