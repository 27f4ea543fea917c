"""Taking in a model: admission, upload, hash, worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from time import monotonic

from loader_service.broker.compiled_exchange import CompiledPartitions
from loader_service.broker.crash_guard import CrashGuard
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.device_checks import DeviceChecks
from loader_service.broker.device_policy import device_order
from loader_service.broker.draining import Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import LoadBegan, LoadFailed, LoadReady
from loader_service.broker.held_models import HeldModels
from loader_service.broker.hosts import Hosts
from loader_service.broker.load import Load, late
from loader_service.broker.messages import limits_from_message
from loader_service.broker.model import Model, new_id
from loader_service.broker.model_bytes import Collecting, ModelBytes
from loader_service.broker.network_client import NetworkClient
from loader_service.broker.outstanding import LiveBound, LoadRate, Outstanding, bounds
from loader_service.broker.parkable import Home
from loader_service.broker.parking import Parking
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.relay import Relay
from loader_service.broker.reports import read_description, read_summary
from loader_service.broker.returning import Original, Returning
from loader_service.broker.seat import Place
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.upload import (
    Parts,
    check_header,
    check_size,
    pass_on,
    pass_on_held,
    read_header,
)
from loader_service.broker.worker import Worker
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.description import ModelDescription
from model_loader_wire.limits import LimitRaised, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb

LABEL_LENGTH = 256
LOAD, INSPECT = "load", "inspect"
"""Tasks, as events name them."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection found."""

    summary: str
    sha256: bytes
    worker: Place


class Loading:
    """Turns uploads into workers."""

    def __init__(
        self,
        settings: Settings,
        principals: Principals,
        descriptors: Descriptors,
        sessions: Sessions,
        supervisor: Supervisor,
        events: EventStream,
        draining: Draining,
    ) -> None:
        self._settings = settings
        self._events = events
        self._draining = draining
        self._principals = principals
        self._sessions = sessions
        self._supervisor = supervisor
        self._hosts = Hosts(supervisor)
        self._guard = CrashGuard(settings)
        self._admission = supervisor.admission()
        self._rate = LoadRate(
            LiveBound(principals, "principal_loads_per_minute"),
            LiveBound(principals, "total_loads_per_minute"),
        )
        self._uploads = Outstanding(
            "upload_bytes",
            "too many bytes of uploads at a time",
            *bounds(principals, "upload_bytes"),
        )
        self.held = HeldModels(settings, principals, sessions, self._uploads, descriptors)
        self.device_checks = DeviceChecks(settings)
        self.compiled = CompiledPartitions(
            settings.compiled_cache_bytes, settings.compiled_cache_directory
        )
        returning = Returning(
            principals,
            sessions,
            supervisor,
            self._admission,
            self._guard,
            self.compiled,
            settings.leaving_seconds,
        )
        self.parking = Parking(settings, descriptors, events, returning, self._admission.left)
        supervisor.when_pinged.append(self.parking.look)
        sessions.when_closed.append(self._drop_spare)

    async def load(self, session: Session, parts: Parts) -> Model:
        """Load a model for a session; raises Refusal, and then leaves nothing behind."""
        async with self._admitted(session, parts, LOAD) as load:
            if isinstance(session.principal, NetworkClient) and not load.header.relayed:
                what = "a client of the network has its models relayed: no channel leaves a machine"
                raise refuse(Cause.UNSUPPORTED, what)
            worker = await self._spawn(session, load, Task.LOAD)
            digest = await self._receive(session, load, worker, parts)
            description = await read_description(worker)
            worker.serving = True
            model_id = new_id()
            model = Model(
                model_id=model_id,
                worker=self._home(session, load, worker, model_id, digest, description),
                description=description,
                limits=load.limits,
                sha256=digest,
                label=printable(load.header.label, LABEL_LENGTH),
                origin=session.origin,
                coarse=load.devices is not None and load.devices.coarse,
            )
            if load.header.relayed:
                model.relay = Relay(model.take_channel(), model.worker, description, load.limits)
            if load.content is not None:
                self.held.keep(session, digest, load.content)
            self._sessions.add(session, model)
        self._tell_ready(session, load, LOAD, digest, worker, model.model_id)
        self._prepare_next(session, load)
        if model.relay is None:
            loop = asyncio.get_running_loop()
            claim = loop.call_later(self._settings.claim_seconds, _close_unclaimed, model.worker)
            model.worker.when_ended(lambda _: claim.cancel())
        return model

    def _home(
        self,
        session: Session,
        load: Load,
        worker: Place,
        model_id: str,
        digest: bytes,
        description: ModelDescription,
    ) -> Home:
        """Return where a model lives that its worker has loaded."""
        if not isinstance(worker, Worker):
            return worker
        if worker.kept_end is None or load.content is None:
            worker.drop_kept_end()
            return worker
        original = Original(
            session=session,
            limits=load.limits,
            num_threads=load.header.num_threads,
            layers=worker.layers,
            devices=load.devices,
            content=load.content.copy(),
            sha256=digest,
            description=description,
        )
        place = self.parking.home(model_id, worker, original)
        if place is None:
            original.content.close()
        return place or worker

    def _prepare_next(self, session: Session, load: Load) -> None:
        """Have a process made for the origin's next load, which is likely to be like this one."""
        if session.closed or self._shares_process(session) or load.devices is not None:
            return
        if not self._sessions.has_room_to_spare(session.principal):
            return
        self._supervisor.prepare(session.owner, load.limits, load.header.num_threads)

    def _drop_spare(self, session: Session) -> None:
        """End the process that waits for an origin whose last session is over."""
        mine = self._sessions.of_principal(session.principal)
        if not any(other.origin == session.origin for other in mine):
            self._supervisor.drop_spare(session.owner)

    async def inspect(self, session: Session, parts: Parts) -> Inspection:
        """Read what a file is, in a worker that serves nothing else; raises Refusal."""
        async with self._admitted(session, parts, INSPECT) as load:
            with self._sessions.inspecting(session, load.limits):
                worker = await self._spawn(session, load, Task.INSPECT)
                digest = await self._receive(session, load, worker, parts)
                summary = await read_summary(worker)
                await worker.end(Failure(Cause.CLOSED, "the inspection ended"))
        self._tell_ready(session, load, INSPECT, digest, worker)
        return Inspection(summary, digest, worker)

    def _tell_ready(
        self,
        session: Session,
        load: Load,
        task: str,
        digest: bytes,
        worker: Place,
        model_id: str | None = None,
    ) -> None:
        self._events.tell(
            LoadReady(
                owner=session.owner,
                task=task,
                model_id=model_id,
                sha256=digest.hex(),
                model_bytes=load.received,
                worker_pid=worker.pid,
                seconds=load.age(),
            )
        )

    @contextmanager
    def _telling_of_failure(self, session: Session, task: str) -> Iterator[None]:
        """Tell if the block fails, whatever it was that failed."""
        began = monotonic()
        try:
            yield
        except BaseException as error:
            match error:
                case Refusal():
                    failure, error.told = error.failure, True
                case asyncio.CancelledError():
                    failure = Failure(Cause.CANCELLED, "the caller withdrew the load")
                case _:
                    failure = Failure(Cause.INTERNAL, f"a fault of the service: {type(error)}")
            seconds = monotonic() - began
            self._events.tell(
                LoadFailed(owner=session.owner, task=task, failure=failure, seconds=seconds)
            )
            raise

    @asynccontextmanager
    async def _admitted(self, session: Session, parts: Parts, task: str) -> AsyncIterator[Load]:
        """Check a load's header and count it; its deadline and its failure end its worker."""
        with self._telling_of_failure(session, task):
            async with self._checked(session, parts) as load:
                self._events.tell(
                    LoadBegan(owner=session.owner, task=task, announced_bytes=load.size)
                )
                yield load

    @asynccontextmanager
    async def _checked(self, session: Session, parts: Parts) -> AsyncIterator[Load]:
        self._draining.check()
        self._principals.require(session.principal)
        longest = self._principals.policy_for(session.owner).limits.load_seconds or 0
        try:
            async with asyncio.timeout(longest):
                header = await read_header(parts)
        except TimeoutError:
            raise Refusal(late(longest, longest)) from None
        limits = self._limits(session, header)
        check_header(header, limits)
        with ExitStack() as held:
            content = None
            if header.offer:
                content = held.enter_context(closing(self.held.take(session, header.offer)))
            async with self._counted(session, header, limits, content) as load:
                yield load

    @asynccontextmanager
    async def _counted(
        self, session: Session, header: pb.LoadHeader, limits: Limits, content: ModelBytes | None
    ) -> AsyncIterator[Load]:
        size = header.size if content is None else content.size
        check_size(size, limits)
        owner = session.owner
        devices = device_order(self._principals.policy_for(owner), owner, header)
        try:
            async with asyncio.timeout(limits.load_seconds):
                devices = await self.device_checks.checked(devices)
        except TimeoutError:
            seconds = limits.load_seconds or 0
            raise Refusal(late(seconds, seconds)) from None
        if devices is not None and devices.options.cache_token is not None:
            devices = replace(devices, cache_entry_bytes=self.compiled.entry_bytes)
        self._rate.count(owner, limits.loads_per_minute or 0)
        await self._sessions.admit(session, limits, self._settings.leaving_seconds)
        most, patience = limits.upload_bytes or 0, self._settings.leaving_seconds
        try:
            async with self._admission.held(owner, limits, size, patience):
                with self._uploads.held(owner, size, most) as count_upload:
                    load = Load(session, header, limits, size, content, count_upload, devices)
                    async with load.ended_with_failure(), asyncio.timeout(limits.load_seconds):
                        yield load
        except TimeoutError:
            raise Refusal(late(load.age(), limits.load_seconds or 0)) from None
        finally:
            session.loading -= 1

    async def _spawn(self, session: Session, load: Load, task: Task) -> Place:
        header = load.header
        owner = session.owner
        worker: Place
        if load.devices is not None and task is Task.LOAD:
            # Also where models share a process: that one has no devices.
            worker = await self._supervisor.spawn(
                owner, load.limits, task, header.num_threads, load.size, load.devices
            )
        elif task is Task.LOAD and self._shares_process(session):
            worker = await self._hosts.seat(owner, load.limits, header.num_threads, load.size)
        else:
            worker = await self._supervisor.spawn(
                owner, load.limits, task, header.num_threads, load.size
            )
        load.adopt(worker)
        missing = sorted(set(header.required_layers) - set(worker.layers))
        if missing:
            missing = [printable(layer, 64) for layer in missing[:16]]
            reasons = "; ".join(
                f"{layer}: {worker.missing.get(layer, 'there is no layer of that name')}"
                for layer in missing
            )
            raise refuse(
                Cause.UNSUPPORTED,
                f"this host does not give the required layers {', '.join(missing)} ({reasons})",
            )
        return worker

    async def _receive(self, session: Session, load: Load, worker: Place, parts: Parts) -> bytes:
        """Give the worker its model, unless that is known to end it; returns its SHA-256."""
        digest = await self._pass_on(load, worker, parts)
        self._principals.require_model(session.owner, digest)
        self._guard.check(session.owner, digest)
        self._guard.watch(session.owner, digest, worker)
        if load.devices is not None and load.devices.cache_entry_bytes:
            assert isinstance(worker, Worker)
            token = load.devices.options.cache_token or b""
            worker.exchanges(self.compiled.exchange(session.owner, digest, token))
        await worker.end_model()
        return digest

    async def _pass_on(self, load: Load, worker: Place, parts: Parts) -> bytes:
        """Give the worker the bytes, from wherever they come; returns their SHA-256."""
        if load.content is not None:
            return await pass_on_held(worker, load.content)
        parks = self.parking.takes(load.owner.principal, load.size)
        if not parks and not self.held.keeps(load.size):
            return await pass_on(worker, load.header, load.limits, parts, load.count_upload)
        with closing(Collecting()) as collecting:
            digest = await pass_on(
                worker, load.header, load.limits, parts, load.count_upload, collecting
            )
            load.hold(collecting.seal())
        return digest

    def _shares_process(self, session: Session) -> bool:
        """Whether the models of the session's origin share a process."""
        return self._principals.policy_for(session.owner).isolation == "origin"

    def _limits(self, session: Session, header: pb.LoadHeader) -> Limits:
        try:
            most = self._principals.policy_for(session.owner).limits
            limits = most.lowered_by(limits_from_message(header.limits))
        except LimitRaised as error:
            raise over_limit(
                error.limit, error.value, error.maximum, "a limit can only be lowered"
            ) from None
        except (TypeError, ValueError) as error:
            raise refuse(Cause.INVALID_INPUT, str(error)) from None
        self._supervisor.check_enforceable(limits)
        return limits


def _close_unclaimed(worker: Home) -> None:
    """End a model whose caller left between the load and taking the channel."""
    if worker.channel is not None:
        worker.kill(Failure(Cause.CANCELLED, "nobody asked for the model's channel"))
