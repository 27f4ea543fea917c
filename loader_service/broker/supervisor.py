"""Making workers and watching them: spawn, cgroup, ping, memory, death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

from loader_service.broker.admission import Admission, admission
from loader_service.broker.channels import make_channel
from loader_service.broker.cleaning import reap_strangers
from loader_service.broker.descriptors import OF_A_WORKER, Descriptors
from loader_service.broker.groups import (
    Groups,
    Owner,
    add_layers,
    check_enforceable,
    total_memory,
)
from loader_service.broker.host import Host
from loader_service.broker.last_words import LastWords
from loader_service.broker.principals import operators_for
from loader_service.broker.readiness import Readiness
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.broker.zygote import Warm, Zygote, ZygoteGone
from loader_service.broker.zygotes import Zygotes
from loader_service.sandbox import cgroup
from loader_service.sandbox.credentials import UidPool
from loader_service.sandbox.policy import tasks_for
from loader_service.worker.orders import Go, Spawn, Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits

HELD_BY_RLIMIT = "rlimit-data"


class Supervisor:
    """Parent and sole judge of every worker of a broker."""

    def __init__(
        self,
        settings: Settings,
        descriptors: Descriptors,
        tree: cgroup.Tree | None,
        zygote: Zygote,
    ) -> None:
        """Take over the tree and the broker's own zygote, which was started after the tree."""
        self._settings = settings
        self._descriptors = descriptors
        self._zygotes = Zygotes(settings, zygote)
        self._tree = tree
        self._groups = None if tree is None else Groups(settings, tree)
        self._uids = UidPool.for_this_host()
        self._workers: dict[int, Worker] = {}
        self._births: set[asyncio.Task[Worker]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = False
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
        self.check_enforceable(self._settings.limits)
        self.check_enforceable(self._settings)
        self._descriptors.check_enforceable()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            self.runtime = await self._zygotes.own.warmed(self._settings.start_seconds)
        except ZygoteGone as error:
            raise refuse(Cause.UNAVAILABLE, f"no runtime could be started: {error}") from None
        rehearsed = await self._rehearse()
        self.layers, self.missing = rehearsed.layers, rehearsed.missing
        self._watching = asyncio.create_task(self._watch())
        self.readiness.set(True)

    async def _rehearse(self) -> Worker:
        owner = Owner(os.geteuid(), "rehearsal")
        worker = await self.spawn(owner, self._settings.limits, Task.REHEARSE, 1, 0)
        ending = await worker.verdict()
        if ending.cause is not Cause.CLOSED:
            # Locked down, but on its way out it did what the sandbox forbids here.
            raise Refusal(ending)
        return worker

    async def _recover(self) -> None:
        """Try whether workers can be made again: who looks at the health first loads nothing."""
        with suppress(Refusal, OSError):
            await self._rehearse()

    @property
    def memory_held_by(self) -> str:
        """How a worker's memory is held to its limit."""
        if self._tree is not None and self._tree.holds("memory"):
            return f"cgroup-v{self._tree.version}"
        return HELD_BY_RLIMIT

    def check_enforceable(self, limits: Limits | Settings) -> None:
        """Raise Refusal for a limit that this host cannot enforce."""
        check_enforceable(limits, self._tree)

    @property
    def total_memory_bytes(self) -> int:
        """How much memory all workers together may use."""
        return total_memory(self._settings, self._tree)

    def admission(self) -> Admission:
        """Make what lets models in by the memory that workers use."""
        return admission(self._settings, self._tree)

    async def spawn(
        self, owner: Owner, limits: Limits, task: Task, num_threads: int, model_size: int
    ) -> Worker:
        """Make a worker and wait until it is locked down; raises Refusal if that fails."""
        go = self.order(owner, limits, task, num_threads, model_size)
        return await self._spawn(owner, limits, go)

    async def spawn_host(self, owner: Owner) -> Host:
        """Make a worker for the models of an origin; its limits are raised with each of them."""
        limits = self._settings.limits
        go = self.order(owner, limits, Task.HOST, limits.threads or 1, 0)
        host = await self._spawn(owner, limits, replace(go, models=limits.models_per_origin or 1))
        assert isinstance(host, Host)
        return host

    def order(
        self, owner: Owner, limits: Limits, task: Task, num_threads: int, model_size: int
    ) -> Go:
        """Write the orders for a model, or for a worker that begins with one."""
        return Go(
            task=task,
            threads=min(max(num_threads, 1), limits.threads or 1),
            data_bytes=limits.memory_bytes if self.memory_held_by == HELD_BY_RLIMIT else None,
            memory_bytes=limits.memory_bytes or 0,
            cpu_seconds=limits.cpu_seconds,
            tensor_bytes=limits.tensor_bytes or 0,
            output_bytes=limits.output_bytes or 0,
            model_size=model_size,
            operators=operators_for(self._settings, owner),
        )

    async def _spawn(self, owner: Owner, limits: Limits, go: Go) -> Worker:
        channels = self._settings.channels_per_host if go.task == Task.HOST else 1
        descriptors = OF_A_WORKER - 1 + channels
        try:
            self._descriptors.take(owner.principal, descriptors)
        except Refusal as refusal:
            if refusal.failure.limit == "total_descriptors":
                self.readiness.set(False)
            raise
        # A birth goes on to its end even if the caller leaves in the middle: the zygote answers in
        # order, and a process that exists needs somebody who ends it.
        birth = asyncio.create_task(self._birth(owner, limits, go, channels))
        self._births.add(birth)
        birth.add_done_callback(partial(self._descriptors.follow, owner.principal, descriptors))
        birth.add_done_callback(self._birth_over)
        try:
            worker = await asyncio.shield(birth)
        except asyncio.CancelledError:
            birth.add_done_callback(_end_unwanted)
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

    async def _birth(self, owner: Owner, limits: Limits, go: Go, channels: int) -> Worker:
        """Make a process; a zygote that died is replaced once."""
        for _ in range(2):
            if self._stopping:
                raise refuse(Cause.UNAVAILABLE, "the service is ending")
            zygote = await self._zygotes.of(owner.principal)
            try:
                await zygote.warmed(self._settings.start_seconds)
                return await self._born(zygote, owner, limits, go, channels)
            except ZygoteGone:
                await self._zygotes.discard(owner.principal, zygote)
        raise refuse(Cause.UNAVAILABLE, "the process that makes workers ended twice")

    def _birth_over(self, birth: asyncio.Task[Worker]) -> None:
        self._births.discard(birth)
        if self._watching is not None and not birth.cancelled():
            self.readiness.set(birth.exception() is None and not self._stopping)
        self._reap()

    async def _born(
        self, zygote: Zygote, owner: Owner, limits: Limits, go: Go, channels: int
    ) -> Worker:
        """Fork the process and put it into its cgroup; it touches nothing until GO."""
        with ExitStack() as undo, ExitStack() as given:
            group = None
            if self._groups is not None:
                group = self._groups.make(owner, limits, tasks_for(go.threads, 2 * go.models))
                undo.callback(group.remove)
            uid = None
            if self._uids is not None:
                uid = self._uids.take()
                undo.callback(self._uids.give_back, uid)
            words_reading, words_writing = os.pipe2(os.O_CLOEXEC)
            given.callback(os.close, words_writing)
            last_words = LastWords(words_reading, self._settings.stderr_bytes_per_second)
            undo.callback(last_words.close)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            given.enter_context(theirs)
            pairs = [make_channel() for _ in range(channels)]
            for client, channel in pairs:
                undo.callback(client.close)
                given.enter_context(channel)
            pid = await zygote.spawn(
                Spawn(uid, channels),
                (words_writing, theirs.fileno(), *(channel.fileno() for _, channel in pairs)),
                self._settings.spawn_seconds,
            )
            # The copies here must go at once, or the death of the worker would end nothing.
            given.close()
            ours.setblocking(False)
            clients = [client for client, _ in pairs]
            more = (last_words, group, limits, self._ended, self._settings.verdict_seconds)
            worker: Worker
            if go.task == Task.HOST:
                worker = Host(pid, ours, clients, *more)
            else:
                worker = Worker(pid, ours, clients[0], *more)
            undo.pop_all()
        self._workers[pid] = worker
        if uid is not None and self._uids is not None:
            pool = self._uids
            worker.when_ended(lambda _: pool.give_back(uid))
        if group is not None:
            try:
                group.add(pid)
            except OSError as error:
                reason = Failure(Cause.UNAVAILABLE, f"the worker's cgroup refused it: {error}")
                raise Refusal(await worker.end(reason)) from None
        return worker

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
        if not self._births:
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
                if not self.readiness.ready and (self._recovery is None or self._recovery.done()):
                    self._recovery = asyncio.create_task(self._recover())
            for worker in list(self._workers.values()):
                if due:
                    worker.ping()
                if hold:
                    worker.hold_memory()

    async def stop(self) -> None:
        """End every worker and zygote, and remove the cgroups."""
        self._stopping = True
        self.readiness.set(False)
        for task in filter(None, (self._watching, self._recovery)):
            task.cancel()
        if self._births:
            await asyncio.wait(self._births, timeout=self._settings.spawn_seconds)
        ended = Failure(Cause.CLOSED, "the service ended")
        await asyncio.gather(*(worker.end(ended) for worker in list(self._workers.values())))
        await self._zygotes.end()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        if self._tree is not None:
            self._tree.remove()


def _end_unwanted(birth: asyncio.Task[Worker]) -> None:
    if not birth.cancelled() and birth.exception() is None:
        birth.result().kill(Failure(Cause.CANCELLED, "nobody waits for this worker any more"))
