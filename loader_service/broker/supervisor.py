"""Making workers and watching them: spawn, cgroup, ping, memory, death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import dataclass

import psutil

from loader_service.broker.cleaning import reap_strangers
from loader_service.broker.last_words import LastWords
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.broker.zygote import Warm, Zygote, ZygoteGone
from loader_service.sandbox import cgroup
from loader_service.sandbox.credentials import UidPool
from loader_service.sandbox.policy import tasks_for
from loader_service.worker.orders import Go, Spawn, Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose worker it is: the place in the cgroup tree, and the key of its zygote."""

    principal: int
    origin: str


class Supervisor:
    """Parent and sole judge of every worker of a broker."""

    def __init__(self, settings: Settings, first_zygote: Zygote) -> None:
        self._settings = settings
        self._zygotes: dict[int, Zygote] = {os.getuid(): first_zygote}
        self._tree = cgroup.discover()
        self._uids = UidPool.for_this_host()
        self._workers: dict[int, Worker] = {}
        self._worker_uids: dict[int, int] = {}
        self._serial = 0
        self._watching: asyncio.Task[None] | None = None
        self.layers: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        self.runtime = Warm("", "")

    async def start(self) -> None:
        """Rehearse: one worker locks itself down and ends, which shows what this host allows.

        Raises Refusal where the minimum (no_new_privs, seccomp, rlimits) cannot be had.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        zygote = self._zygotes[os.getuid()]
        self.runtime = await zygote.warmed(self._settings.start_seconds)
        owner = Owner(os.getuid(), "rehearsal")
        worker = await self.spawn(owner, self._settings.limits, Task.REHEARSE, 1, 0)
        self.layers, self.missing = worker.layers, worker.missing
        await worker.ended
        self._watching = asyncio.create_task(self._watch())

    @property
    def memory_held_by(self) -> str:
        """How a worker's memory is held to its limit."""
        if self._tree is not None and self._tree.holds("memory"):
            return f"cgroup-v{self._tree.version}"
        return "rlimit-data"

    def check_enforceable(self, limits: Limits) -> None:
        """Raise Refusal for a limit that this host cannot enforce."""
        if limits.cpu_percent is not None and not (self._tree and self._tree.holds("cpu")):
            raise refuse(
                Cause.UNSUPPORTED,
                "the limit cpu_percent needs a writable cpu cgroup, which this host does not give "
                "the service; see `model-loader doctor`",
            )

    async def spawn(
        self, owner: Owner, limits: Limits, task: Task, num_threads: int, model_size: int
    ) -> Worker:
        """Make a worker and wait until it is locked down; raises Refusal if that fails."""
        threads = min(max(num_threads, 1), limits.threads or 1)
        tasks = tasks_for(threads)
        held = self.memory_held_by != "rlimit-data"
        go = Go(
            task=task,
            threads=threads,
            data_bytes=None if held else limits.memory_bytes,
            memory_bytes=limits.memory_bytes or 0,
            cpu_seconds=limits.cpu_seconds,
            tensor_bytes=limits.tensor_bytes or 0,
            output_bytes=limits.output_bytes or 0,
            model_size=model_size,
        )
        # A birth goes on to its end even if the caller leaves in the middle: the zygote answers in
        # order, and a process that exists needs somebody who ends it.
        birth = asyncio.create_task(self._birth(owner, limits, tasks))
        try:
            worker = await asyncio.shield(birth)
        except asyncio.CancelledError:
            birth.add_done_callback(_end_unwanted)
            raise
        try:
            async with asyncio.timeout(self._settings.spawn_seconds):
                await worker.begin(go)
        except BaseException as error:
            worker.kill(Failure(Cause.INTERNAL, "the worker did not lock itself down"))
            if isinstance(error, TimeoutError):
                raise Refusal(await worker.ended) from None
            raise
        return worker

    async def _birth(self, owner: Owner, limits: Limits, tasks: int) -> Worker:
        """Make a process; a zygote that died is replaced once."""
        for _ in range(2):
            try:
                return await self._born(owner, limits, tasks)
            except ZygoteGone:
                self._zygotes.pop(owner.principal).kill()
        raise refuse(Cause.UNAVAILABLE, "the process that makes workers ended twice")

    async def _born(self, owner: Owner, limits: Limits, tasks: int) -> Worker:
        """Fork the process and put it into its cgroup; it touches nothing until GO."""
        self._serial += 1
        group = None
        if self._tree is not None:
            group = self._tree.create(
                f"user-{owner.principal}/{cgroup.safe_name(owner.origin)}/worker-{self._serial}",
                cgroup.GroupLimits(
                    memory_bytes=limits.memory_bytes, pids=tasks, cpu_percent=limits.cpu_percent
                ),
            )
        uid = self._uids.take() if self._uids else None
        words_reading, words_writing = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair()
        client, channel = socket.socketpair()
        try:
            zygote = await self._zygote_of(owner.principal)
            pid = await zygote.spawn(Spawn(uid), (words_writing, theirs.fileno(), channel.fileno()))
        except BaseException:
            ours.close()
            client.close()
            os.close(words_reading)
            self._release(group, uid)
            raise
        finally:
            # The copies here must go at once, or the death of the worker would end nothing.
            os.close(words_writing)
            theirs.close()
            channel.close()
        if group is not None:
            group.add(pid)
        ours.setblocking(False)
        worker = Worker(pid, ours, client, LastWords(words_reading), group, limits, self._ended)
        self._workers[pid] = worker
        if uid is not None:
            self._worker_uids[pid] = uid
        return worker

    async def _zygote_of(self, principal: int) -> Zygote:
        zygote = self._zygotes.get(principal)
        if zygote is not None and zygote.forks >= self._settings.forks_per_zygote:
            zygote.kill()
            zygote = None
        if zygote is None:
            zygote = self._zygotes[principal] = Zygote(self._settings.runtime)
        await zygote.warmed(self._settings.start_seconds)
        return zygote

    def _ended(self, worker: Worker) -> None:
        """Give back what a dead worker held."""
        self._workers.pop(worker.pid, None)
        self._release(worker.group, self._worker_uids.pop(worker.pid, None))

    def _release(self, group: cgroup.Group | None, uid: int | None) -> None:
        if group is not None:
            group.remove()
        if uid is not None and self._uids is not None:
            self._uids.give_back(uid)

    def _reap(self) -> None:
        zygotes = {zygote.pid for zygote in self._zygotes.values()}
        reap_strangers(lambda pid: pid in self._workers or pid in zygotes)

    async def _watch(self) -> None:
        """Ping every worker; where no cgroup holds the memory, look at that as well."""
        settings = self._settings
        pause = settings.ping_seconds
        if self.memory_held_by == "rlimit-data":
            pause = settings.memory_watch_seconds
        pinged = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            if loop.time() - pinged >= settings.ping_seconds:
                pinged = loop.time()
                for worker in list(self._workers.values()):
                    worker.ping()
            if self.memory_held_by == "rlimit-data":
                for worker in list(self._workers.values()):
                    _hold_memory(worker)

    async def stop(self) -> None:
        """End every worker and zygote, and remove the cgroups."""
        if self._watching is not None:
            self._watching.cancel()
        workers = list(self._workers.values())
        for worker in workers:
            worker.kill(Failure(Cause.CLOSED, "the service ended"))
        if workers:
            await asyncio.wait(
                [worker.ended for worker in workers], timeout=self._settings.verdict_seconds
            )
        for zygote in self._zygotes.values():
            zygote.kill()
        if self._tree is not None:
            self._tree.remove()


def _end_unwanted(birth: asyncio.Task[Worker]) -> None:
    if not birth.cancelled() and birth.exception() is None:
        birth.result().kill(Failure(Cause.CANCELLED, "nobody waits for this worker any more"))


def _hold_memory(worker: Worker) -> None:
    """End a worker whose resident memory is over its limit."""
    try:
        resident = psutil.Process(worker.pid).memory_info().rss
    except psutil.Error:
        return
    maximum = worker.limits.memory_bytes or 0
    if resident > maximum:
        worker.kill(
            Failure(
                Cause.OUT_OF_MEMORY,
                f"the worker needed more memory than memory_bytes = {maximum} allow",
                "memory_bytes",
                resident,
                maximum,
            )
        )
