"""Making workers and watching them: spawn, cgroup, ping, memory, death."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from loader_service.broker.admission import Admission, admission
from loader_service.broker.births import Births, Kind
from loader_service.broker.channels import KeptChannel
from loader_service.broker.cleaning import reap_strangers
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import WorkerEnded
from loader_service.broker.groups import (
    Groups,
    Owner,
    add_layers,
    check_enforceable,
    total_memory,
)
from loader_service.broker.host import Host
from loader_service.broker.principals import Principals
from loader_service.broker.readiness import Readiness
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.broker.signal_calls import call_at_signal
from loader_service.broker.spares import Spares, end_unwanted
from loader_service.broker.worker import Worker
from loader_service.broker.zygote import Warm, Zygote, ZygoteGone
from loader_service.broker.zygotes import BROKEN, Zygotes
from loader_service.devices.catalogue import Enabled
from loader_service.sandbox import cgroup
from loader_service.worker.orders import Go, Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.device_options import DeviceOptions
from model_loader_wire.limits import Limits

log = logging.getLogger("model_loader.devices")

NOT_MADE = "a worker could not be made"
HELD_BY_RLIMIT = "rlimit-data"
ENDED = Failure(Cause.UNAVAILABLE, "the service ended")
"""What becomes of every worker then; its model was not closed by whoever holds it."""


class Supervisor:
    """Parent and sole judge of every worker of a broker."""

    def __init__(
        self,
        settings: Settings,
        principals: Principals,
        descriptors: Descriptors,
        tree: cgroup.Tree | None,
        zygote: Zygote,
        events: EventStream,
    ) -> None:
        """Take over the tree and the broker's own zygote, which was started after the tree."""
        self._settings = settings
        self._principals = principals
        self._descriptors = descriptors
        self._zygotes = Zygotes(settings, zygote, events)
        self._events = events
        self._tree = tree
        self._births = Births(
            settings,
            descriptors,
            self._zygotes,
            None if tree is None else Groups(settings, principals, tree),
            self._was_born,
            self._birth_over,
            self._ended,
        )
        self._spares = Spares(self._births, settings.spare_seconds)
        self._workers: dict[int, Worker] = {}
        self._watching: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = False
        self.when_pinged: list[Callable[[], None]] = []
        """Called after each look at all workers, every ``ping_seconds``."""
        self.readiness = Readiness()
        """Whether workers can be made, as the last birth showed."""
        self.layers: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        self.runtime = Warm("", "")

    async def start(self) -> None:
        """Rehearse: one worker locks itself down and ends, which shows what this host allows.

        Raises Refusal where the minimum (no_new_privs, seccomp, rlimits) or a limit of the settings
        cannot be had.
        """
        self.check_policies(self._settings)
        self.check_enforceable(self._settings)
        self._descriptors.check_enforceable()
        call_at_signal(signal.SIGCHLD, self._reap)
        try:
            self.runtime = await self._zygotes.own.warmed(self._settings.start_seconds)
        except ZygoteGone as error:
            raise refuse(Cause.UNAVAILABLE, f"no runtime could be started: {error}") from None
        rehearsed = await self._rehearse()
        self.layers, self.missing = rehearsed.layers, rehearsed.missing
        self._watching = asyncio.create_task(self._watch())
        self.readiness.set(True)

    async def rehearse_with(self, device: Enabled) -> None:
        """Try whether a worker with a device can be made; raises Refusal."""
        await self._rehearse(DeviceOrder((device,), DeviceOptions(), "auto", coarse=False))

    async def _rehearse(self, devices: DeviceOrder | None = None) -> Worker:
        owner = Owner(os.geteuid(), "rehearsal")
        worker = await self.spawn(owner, self._settings.limits, Task.REHEARSE, 1, 0, devices)
        ending = await worker.verdict()
        if ending.cause is not Cause.CLOSED:
            # Locked down, but on its way out it did what the sandbox forbids here.
            raise Refusal(ending)
        return worker

    async def _recover(self) -> None:
        """Try whether workers can be made again: who looks at the health first loads nothing."""
        with suppress(Refusal, OSError):
            await self._rehearse()

    async def zygote_answers(self) -> bool:
        """Whether a warm zygote answers; one that does not is replaced for the next time."""
        principal = os.geteuid()
        zygote = await self._zygotes.of(principal)
        try:
            await zygote.warmed(self._settings.start_seconds)
            await zygote.answer(self._settings.spawn_seconds)
        except (ZygoteGone, Refusal):
            await self._zygotes.discard(principal, zygote, BROKEN)
            return False
        return True

    @property
    def count(self) -> int:
        """How many workers live, those in waiting included."""
        return len(self._workers)

    @property
    def memory_held_by(self) -> str:
        """How a worker's memory is held to its limit."""
        if self._tree is not None and self._tree.holds("memory"):
            return f"cgroup-v{self._tree.version}"
        return HELD_BY_RLIMIT

    def check_enforceable(self, limits: Limits | Settings) -> None:
        """Raise Refusal for a limit that this host cannot enforce."""
        check_enforceable(limits, self._tree)

    def check_policies(self, settings: Settings) -> None:
        """Raise Refusal for a limit of any policy that this host cannot enforce."""
        for policy in (settings.own_policy(), *settings.policies):
            self.check_enforceable(policy.limits)

    @property
    def total_memory_bytes(self) -> int:
        """How much memory all workers together may use."""
        return total_memory(self._settings, self._tree)

    def admission(self) -> Admission:
        """Make what lets models in by the memory that workers use."""
        return admission(self._principals, self._tree)

    async def spawn(
        self,
        owner: Owner,
        limits: Limits,
        task: Task,
        num_threads: int,
        model_size: int,
        devices: DeviceOrder | None = None,
        channel: KeptChannel | None = None,
    ) -> Worker:
        """Make a worker and wait until it is locked down; raises Refusal if that fails.

        `channel` is that of a model which comes back; any other gets a new one.
        """
        go = self.order(owner, limits, task, num_threads, model_size)
        kind = self._kind(owner, limits, go.threads)
        if devices is None:
            return await self._spawn(kind, go, channel)
        kind = replace(kind, devices=devices.enabled, coarse=devices.coarse)
        wish, entry_bytes = devices.wish(limits.load_seconds), devices.cache_entry_bytes
        go = replace(go, wish=wish, cache_entry_bytes=entry_bytes)
        try:
            return await self._spawn(kind, go, channel)
        except Refusal as refusal:
            if not devices.coarse or refusal.failure.limit:
                raise
            log.info("why a caller is not told of devices has no worker: %s", refusal)
            raise refuse(refusal.failure.cause, NOT_MADE) from None

    def _kind(self, owner: Owner, limits: Limits, threads: int) -> Kind:
        """Say what a process for one model is."""
        return Kind(owner, limits, threads, keeps_channel=self._settings.parks)

    async def spawn_host(self, owner: Owner) -> Host:
        """Make a worker for the models of an origin; its limits are raised with each of them."""
        policy = self._principals.policy_for(owner)
        limits, models = policy.limits, policy.models_per_process
        go = self.order(owner, limits, Task.HOST, limits.threads or 1, 0)
        kind = Kind(owner, limits, go.threads, models, policy.channels_per_host, is_host=True)
        host = await self._spawn(kind, replace(go, models=models))
        assert isinstance(host, Host)
        return host

    def order(
        self, owner: Owner, limits: Limits, task: Task, num_threads: int, model_size: int
    ) -> Go:
        """Write the orders for a model, or for a worker that begins with one."""
        return Go(
            task=task,
            threads=_threads(limits, num_threads),
            data_bytes=limits.memory_bytes if self.memory_held_by == HELD_BY_RLIMIT else None,
            memory_bytes=limits.memory_bytes or 0,
            cpu_seconds=limits.cpu_seconds,
            tensor_bytes=limits.tensor_bytes or 0,
            output_bytes=limits.output_bytes or 0,
            model_size=model_size,
            operators=self._principals.policy_for(owner).operators,
        )

    async def _spawn(self, kind: Kind, go: Go, channel: KeptChannel | None = None) -> Worker:
        """Send the process that waits for the owner's load, or one that is made now, its orders."""
        waiting = self._spares.take(kind) if channel is None else None
        if waiting is not None:
            with suppress(Refusal):  # it may have died just now
                return await self._begun(waiting, go)
        try:
            birth = self._births.begin(kind, channel)
        except Refusal as refusal:
            if refusal.failure.limit == "total_descriptors":
                self.readiness.set(False)
            raise
        return await self._begun(birth, go)

    async def _begun(self, birth: asyncio.Task[Worker], go: Go) -> Worker:
        try:
            worker = await asyncio.shield(birth)
        except asyncio.CancelledError:
            birth.add_done_callback(end_unwanted)
            raise
        try:
            async with asyncio.timeout(self._settings.spawn_seconds):
                await worker.begin(go)
        except TimeoutError:
            late = Failure(Cause.INTERNAL, "the worker did not lock itself down in time")
            raise Refusal(await worker.end(late)) from None
        except BaseException:
            worker.kill(Failure(Cause.CANCELLED, "the worker is not needed any more"))
            raise
        add_layers(worker, self._tree)
        return worker

    def prepare(self, owner: Owner, limits: Limits, num_threads: int) -> None:
        """Have a process made for the owner's next load of that kind."""
        self._spares.prepare(self._kind(owner, limits, _threads(limits, num_threads)))

    def drop_spare(self, owner: Owner) -> None:
        """End the process that waits for an owner's load."""
        self._spares.drop(owner)

    def _was_born(self, worker: Worker, owner: Owner) -> None:
        self._workers[worker.pid] = worker
        worker.when_ended(partial(self._tell_end, owner))

    def _tell_end(self, owner: Owner, worker: Worker) -> None:
        assert worker.lost is not None
        self._events.tell(
            WorkerEnded(
                owner=owner,
                cause=worker.lost.cause.value,
                worker_pid=worker.pid,
                cpu_seconds=worker.cpu_seconds,
            )
        )

    def _birth_over(self, well: bool) -> None:
        if self._watching is not None:
            self.readiness.set(well and not self._stopping)
        self._reap()

    def _ended(self, worker: Worker) -> None:
        """Give back what a dead worker held."""
        self._workers.pop(worker.pid, None)
        if worker.group is not None:
            worker.group.remove()
        # It may have stood before others that nobody waits for.
        self._reap()

    def _reap(self) -> None:
        self._zygotes.notice_deaths()
        # While one is being born, nobody can tell a new worker from a stranger.
        if not self._births.under_way:
            reap_strangers(self._workers.__contains__)

    async def _watch(self) -> None:
        """Ping every worker; where no cgroup holds the memory, look at that as well."""
        settings = self._settings
        hold = self.memory_held_by == HELD_BY_RLIMIT
        pause = settings.memory_watch_seconds if hold else settings.ping_seconds
        pinged = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            if due := loop.time() - pinged >= settings.ping_seconds:
                pinged = loop.time()
                if not self.readiness.able and (self._recovery is None or self._recovery.done()):
                    self._recovery = asyncio.create_task(self._recover())
            for worker in list(self._workers.values()):
                if due:
                    worker.ping()
                if hold:
                    worker.hold_memory()
            if due:
                for call in self.when_pinged:
                    call()

    def finish(self) -> None:
        """Let every worker that there is end once it computes nothing."""
        self._spares.stop()
        for worker in list(self._workers.values()):
            worker.finish(ENDED)

    async def stop(self) -> None:
        """End every worker and zygote, and remove the cgroups."""
        self._stopping = True
        self.readiness.set(False)
        for task in filter(None, (self._watching, self._recovery)):
            task.cancel()
        self._spares.stop()
        await self._births.stop(self._settings.spawn_seconds)
        await asyncio.gather(*(worker.end(ENDED) for worker in list(self._workers.values())))
        await self._zygotes.end()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        if self._tree is not None:
            self._tree.remove()


def _threads(limits: Limits, num_threads: int) -> int:
    """Return how many threads an interpreter gets that asks for so many."""
    return min(max(num_threads, 1), limits.threads or 1)
