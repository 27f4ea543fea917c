"""A model's worker that may be parked: to the rest of the broker one worker, which lives on.

The channel outlives the process. The broker keeps the worker's end of it, and while there is no
worker it waits for that end to become readable: then a call has come, or the client has gone. A
call that has come stays in the channel, unread, for the next worker. A worker is parked only when
it says that it has read nothing of a request and will read nothing more; so each call is read by
one worker, and its client notices nothing but the time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from time import monotonic

from loader_service.broker.channels import KeptChannel
from loader_service.broker.meter import Usage
from loader_service.broker.mortal import Mortal
from loader_service.broker.refusal import Refusal
from loader_service.broker.seat import Place
from loader_service.broker.turning_away import turn_away
from loader_service.broker.worker import Worker
from loader_service.sandbox.cgroup import Group
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import BadFrame
from model_loader_wire.limits import Limits

log = logging.getLogger("model_loader.worker")

NOTHING = Usage(0, 0)
LEFT = Failure(Cause.CLOSED, "the model's channel was closed", model_lost=True)


class ParkableWorker(Mortal):
    """The workers of one model, one after another, behind one channel."""

    shared = False
    suspect = False
    """Each of its workers counts by itself."""

    def __init__(
        self,
        worker: Worker,
        end: socket.socket,
        bring_back: Callable[[KeptChannel], Awaitable[Worker]],
        *,
        when_parked: Callable[[ParkableWorker, int], None],
        when_returned: Callable[[ParkableWorker, float], None],
        when_refused: Callable[[Failure], None],
    ) -> None:
        """Take over a worker that serves, and its end of its channel.

        `bring_back` makes another worker for the model, on that channel; it raises Refusal, and
        looks at the number of processes before it waits for anything. The others are told what has
        happened: whose process ended, and how many seconds a return took.
        """
        super().__init__()
        self.channel: socket.socket | None = worker.channel
        worker.channel = None
        self.parked = False
        """Whether there is no process for it yet: what is parked counts for none."""
        self.idle_since = monotonic()
        """When it was last seen to have computed."""
        self.asked = 0
        """How often it was asked to make room since then: one that computes does not."""
        self._worker = worker
        self._kept = KeptChannel(end, worker.channel_inode)
        self._bring_back = bring_back
        self._when_parked = when_parked
        self._when_returned = when_returned
        self._when_refused = when_refused
        self._calls_before = 0
        self._calls_seen = 0
        self._killed_for: Failure | None = None
        self._returning: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.when_ended(ParkableWorker._let_go)
        worker.when_ended(self._worker_ended)

    @property
    def pid(self) -> int:
        """Its process; 0 while it is parked."""
        return 0 if self._is_away else self._worker.pid

    @property
    def calls(self) -> int:
        """Computations that its workers report; their own word."""
        return self._calls_before + (0 if self._is_away else self._worker.calls)

    @property
    def limits(self) -> Limits:
        """The limits of the model."""
        return self._worker.limits

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that hold it, or held it when it was parked."""
        return self._worker.layers

    @property
    def missing(self) -> dict[str, str]:
        """The layers that this host refuses."""
        return self._worker.missing

    @property
    def devices(self) -> Mapping[str, tuple[str, ...]]:
        """Its devices, and what each was granted."""
        return self._worker.devices

    @property
    def reported(self) -> bytes:
        """What its worker last said of its devices; unread."""
        return self._worker.reported

    @property
    def group(self) -> Group | None:
        """Its cgroup, if it has a process."""
        return None if self._is_away else self._worker.group

    def usage(self) -> Usage:
        """Return what its process uses now; nothing while it is parked."""
        return NOTHING if self._is_away else self._worker.usage()

    def look(self, now: float) -> None:
        """Take note of whether it has computed since the last look."""
        if self.calls != self._calls_seen:
            self._calls_seen = self.calls
            self.idle_since, self.asked = now, 0

    def park(self) -> None:
        """Have it parked, unless it is being called."""
        if self.lost is None and not self._is_away and self._killed_for is None:
            self.asked += 1
            self._worker.park()

    async def verdict(self) -> Failure:
        """Wait for an end that is coming; returns why."""
        lost = await self._worker.verdict()
        if self._returning is not None:
            await asyncio.wait([self._returning])
        return replace(self.lost or lost, model_lost=True)

    def kill(self, reason: Failure) -> None:
        """End the model, with its process or without one; the first reason stays on record."""
        if self.lost is not None:
            return
        self._killed_for = self._killed_for or reason
        if not self._is_away:
            self._worker.kill(reason)
        elif self._returning is not None:
            self._returning.cancel()
        else:
            self.over(replace(reason, model_lost=True))

    def drop_channel(self) -> None:
        """Close the broker's copy of the client's end."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    @property
    def _is_away(self) -> bool:
        """Whether it has no process that serves."""
        return self.parked or self._returning is not None

    def _worker_ended(self, worker: Worker) -> None:
        assert worker.lost is not None
        if not worker.has_parked or worker.lost.cause is not Cause.CLOSED:
            self.over(worker.lost)
        elif self._killed_for is not None:
            self.over(replace(self._killed_for, model_lost=True))
        else:
            self._calls_before += worker.calls
            self.parked = True
            self._when_parked(self, worker.pid)
            self._wait_for_call()

    def _wait_for_call(self) -> None:
        self._loop.add_reader(self._kept.end, self._stirred)

    def _stirred(self) -> None:
        """Something has come on the channel: a call, or its end."""
        end = self._kept.end
        try:
            data = end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.over(LEFT)
            return
        self._loop.remove_reader(end)
        self._returning = asyncio.create_task(self._return())
        self._returning.add_done_callback(self._return_over)

    async def _return(self) -> None:
        began = monotonic()
        # Not before: of two that are called at a time each would count the other's process, and
        # be refused for it, while there is room for one.
        self.parked = False
        try:
            worker = await self._bring_back(self._kept)
        except Refusal as refusal:
            await self._refused(refusal.failure)
        except asyncio.CancelledError:
            self._give_up()
        except Exception as error:
            log.exception("a parked model did not come back")
            self.over(Failure(Cause.INTERNAL, f"a fault of the service: {type(error)}"))
        else:
            self._came_back(worker, monotonic() - began)

    def _return_over(self, returning: asyncio.Task[None]) -> None:
        """Tell of an end that came before the return had begun: no line of it ran."""
        if returning.cancelled():
            self._give_up()

    def _came_back(self, worker: Worker, seconds: float) -> None:
        self._returning = None
        self._worker = worker
        self.idle_since, self.asked = monotonic(), 0
        self._when_returned(self, seconds)
        worker.when_ended(self._worker_ended)
        if self._killed_for is not None:
            worker.kill(self._killed_for)

    async def _refused(self, failure: Failure) -> None:
        """Answer the call for which there is no room, and stay parked; any other reason is an end.

        A limit may be kept again in a moment; what else can be wrong will be wrong then, too.
        """
        self._when_refused(failure)
        if failure.cause is not Cause.LIMIT or failure.model_lost:
            self.over(replace(failure, model_lost=True))
            return
        self.parked = True
        try:
            await turn_away(self._kept.end, failure)
        except (EOFError, OSError):
            self.over(LEFT)
        except BadFrame as error:
            message = f"the client sent what is no request: {error}"
            self.over(Failure(Cause.CLOSED, message, model_lost=True))
        except asyncio.CancelledError:
            self._give_up()
        else:
            self._returning = None
            if self._killed_for is not None:
                self._give_up()
            elif self.lost is None:
                self._wait_for_call()

    def _give_up(self) -> None:
        """End while there is no process: somebody has said so meanwhile."""
        self.over(replace(self._killed_for or LEFT, model_lost=True))

    def _let_go(self) -> None:
        self._loop.remove_reader(self._kept.end)
        self._kept.end.close()
        self.drop_channel()


Home = Place | ParkableWorker
"""Where a loaded model lives, if perhaps not always."""
