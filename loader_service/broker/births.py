"""The births of workers: a process from the zygote, in its cgroup, waiting for its orders."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from loader_service.broker.channels import KeptChannel, make_channel
from loader_service.broker.descriptors import OF_A_WORKER, Descriptors
from loader_service.broker.device_policy import shown
from loader_service.broker.groups import Groups, Owner
from loader_service.broker.host import Host
from loader_service.broker.last_words import LastWords
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from loader_service.broker.zygote import Zygote, ZygoteGone
from loader_service.broker.zygotes import BROKEN, Zygotes
from loader_service.devices.catalogue import Enabled, grants_together
from loader_service.sandbox.credentials import UidPool
from loader_service.sandbox.grants import Grants
from loader_service.sandbox.policy import tasks_for
from loader_service.worker.orders import Spawn
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits

DEVICE_FILE_BYTES = 4 << 20
"""What the one file that devices may be granted can hold beside a model: a partition's head."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a process is made for; all of it is settled at its birth."""

    owner: Owner
    limits: Limits
    threads: int
    """Threads of an interpreter."""
    models: int = 1
    """How many it may hold."""
    channels: int = 1
    is_host: bool = False
    """Whether it is to hold the models of an origin together."""
    devices: tuple[Enabled, ...] = ()
    """Devices that it opens before it locks itself down; none: a plain worker."""
    coarse: bool = False
    """Whether its caller may learn nothing of these, from last words neither."""

    keeps_channel: bool = False
    """Whether its channel may outlive it."""

    @property
    def grants(self) -> Grants:
        """What its devices need beyond what every worker has."""
        return grants_together(self.devices)


class Births:
    """Makes processes; each goes on to its end even if nobody waits for it any more.

    The zygote answers in order, and a process that exists needs somebody who ends it.
    """

    def __init__(
        self,
        settings: Settings,
        descriptors: Descriptors,
        zygotes: Zygotes,
        groups: Groups | None,
        born: Callable[[Worker, Owner], None],
        over: Callable[[bool], None],
        ended: Callable[[Worker], None],
    ) -> None:
        """Say what to call: `born` with each worker and whose it is, `over` with whether a birth
        went well, `ended` with a worker that is dead.
        """
        self._settings = settings
        self._descriptors = descriptors
        self._zygotes = zygotes
        self._groups = groups
        self._uids = UidPool.for_this_host()
        self._born_call, self._over_call, self._ended_call = born, over, ended
        self._under_way: set[asyncio.Task[Worker]] = set()
        self._stopping = False

    @property
    def under_way(self) -> bool:
        """Whether a worker is being made just now."""
        return bool(self._under_way)

    def begin(self, kind: Kind, channel: KeptChannel | None = None) -> asyncio.Task[Worker]:
        """Begin to make a process; raises Refusal if there are no descriptors for it.

        It gets the channel of a worker that was parked, or a new one.
        """
        principal = kind.owner.principal
        descriptors = OF_A_WORKER - 1 + kind.channels
        # Its own: a birth goes on when the model is closed meanwhile, and is to go well.
        kept = None if channel is None else replace(channel, end=channel.end.dup())
        try:
            self._descriptors.take(principal, descriptors)
        except BaseException:
            if kept is not None:
                kept.end.close()
            raise
        birth = asyncio.create_task(self._make(kind, kept))
        if kept is not None:
            birth.add_done_callback(partial(_close, kept))
        self._under_way.add(birth)
        birth.add_done_callback(partial(self._descriptors.follow, principal, descriptors))
        birth.add_done_callback(partial(self._over, kind))
        return birth

    async def stop(self, seconds: float) -> None:
        """Begin no more, and wait so long for those that have begun."""
        self._stopping = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)

    async def _make(self, kind: Kind, channel: KeptChannel | None) -> Worker:
        """Make a process; a zygote that died is replaced once."""
        principal = kind.owner.principal
        for _ in range(2):
            if self._stopping:
                raise refuse(Cause.UNAVAILABLE, "the service is ending")
            zygote = await self._zygotes.of(principal)
            try:
                await zygote.warmed(self._settings.start_seconds)
                return await self._fork(zygote, kind, channel)
            except ZygoteGone:
                await self._zygotes.discard(principal, zygote, BROKEN)
        raise refuse(Cause.UNAVAILABLE, "the process that makes workers ended twice")

    def _over(self, kind: Kind, birth: asyncio.Task[Worker]) -> None:
        self._under_way.discard(birth)
        # A device that cannot be loaded says nothing of whether plain workers can be made.
        if not birth.cancelled() and (not kind.grants.afresh or birth.exception() is None):
            self._over_call(birth.exception() is None)

    async def _fork(self, zygote: Zygote, kind: Kind, kept: KeptChannel | None) -> Worker:
        """Fork the process and put it into its cgroup; it touches nothing until GO."""
        with ExitStack() as undo, ExitStack() as given:
            group = None
            if self._groups is not None:
                tasks = tasks_for(kind.threads, 2 * kind.models) + kind.grants.tasks
                group = self._groups.make(kind.owner, kind.limits, tasks)
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
            pairs = [] if kept is not None else [make_channel() for _ in range(kind.channels)]
            for client, channel in pairs:
                undo.callback(client.close)
                given.enter_context(channel)
            theirs_of_channels = [channel for _, channel in pairs]
            kept_end = None
            if kept is not None:
                theirs_of_channels.append(given.enter_context(kept.end.dup()))
            elif kind.keeps_channel:
                kept_end = pairs[0][1].dup()
                undo.callback(kept_end.close)
            seconds = self._settings.spawn_seconds
            order = _order(kind, uid, seconds)
            if kind.grants.afresh:
                # It gets warm as a zygote does, and then has so long to load its devices.
                seconds += self._settings.start_seconds
            pid = await zygote.spawn(
                order,
                (words_writing, theirs.fileno(), *(end.fileno() for end in theirs_of_channels)),
                seconds,
            )
            # The copies here must go at once, or the death of the worker would end nothing.
            given.close()
            ours.setblocking(False)
            clients = [client for client, _ in pairs]
            first = clients[0] if kept is None else kept.client_inode
            seconds = self._settings.verdict_seconds
            more = (last_words, group, kind.limits, self._ended_call, seconds)
            worker: Worker
            if kind.is_host:
                worker = Host(pid, ours, clients, *more)
            else:
                worker = Worker(pid, ours, first, *more)
                worker.kept_end = kept_end
                if kind.devices:
                    worker.has_devices(shown(kind.devices))
                if kind.coarse:
                    worker.hide_last_words()
            undo.pop_all()
        self._born_call(worker, kind.owner)
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


def _close(kept: KeptChannel, _: asyncio.Task[Worker]) -> None:
    kept.end.close()


def _order(kind: Kind, uid: int | None, load_seconds: float) -> Spawn:
    """Write what the zygote is to make."""
    if not kind.devices:
        return Spawn(uid, kind.channels)
    return Spawn(
        uid,
        kind.channels,
        [device.to_fields() for device in kind.devices],
        kind.grants.to_fields(),
        (kind.limits.model_bytes or 0) + DEVICE_FILE_BYTES,
        load_seconds,
    )
