"""The host of each origin, where the models of an origin share one process."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from loader_service.broker.groups import Owner
from loader_service.broker.host import Host
from loader_service.broker.refusal import Refusal
from loader_service.broker.seat import Seat
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.worker import Worker
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits


class Hosts:
    """Makes a host for an origin's first model, and finds a seat in it for the others.

    A host has a number of channels from its birth, each for one model. When they are used up, the
    origin's next models go to a new host; the old one ends with its last model.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._of: dict[Owner, Host] = {}
        self._turns: WeakValueDictionary[Owner, asyncio.Lock] = WeakValueDictionary()

    async def seat(self, owner: Owner, limits: Limits, num_threads: int, model_size: int) -> Seat:
        """Give a model that will come a place in its origin's host; raises Refusal."""
        turn = self._turns.setdefault(owner, asyncio.Lock())
        async with turn:
            host = self._of.get(owner)
            if host is None or not host.has_room:
                host = self._of[owner] = await self._supervisor.spawn_host(owner)
                host.when_ended(lambda ended: self._forget(owner, ended))
            go = self._supervisor.order(owner, limits, Task.LOAD, num_threads, model_size)
            try:
                seat = host.take_seat(limits, go.threads)
            except Refusal:
                host.end_if_empty()
                raise
        try:
            await seat.open(host.share_of(go))
        except BaseException:
            seat.kill(Failure(Cause.CANCELLED, "the load was given up"))
            raise
        return seat

    def _forget(self, owner: Owner, ended: Worker) -> None:
        if self._of.get(owner) is ended:
            del self._of[owner]
