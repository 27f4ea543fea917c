"""Taking in a model: past the gate, into a worker, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from loader_service.broker.compiled_exchange import CompiledPartitions
from loader_service.broker.crash_guard import CrashGuard
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.draining import Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import LoadReady
from loader_service.broker.groups import Owner
from loader_service.broker.hosts import Hosts
from loader_service.broker.load import Load
from loader_service.broker.load_gate import LoadGate
from loader_service.broker.model import Model, new_id
from loader_service.broker.model_bytes import Collecting
from loader_service.broker.network_client import NetworkClient
from loader_service.broker.parkable import Home
from loader_service.broker.parking import Parking
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import refuse
from loader_service.broker.relay import Relay
from loader_service.broker.reports import read_description, read_summary
from loader_service.broker.returning import Original, Returning
from loader_service.broker.seat import Place
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.upload import Parts, pass_on, pass_on_held
from loader_service.broker.worker import Worker
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.description import ModelDescription

LABEL_LENGTH = 256


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
        self._principals = principals
        self._sessions = sessions
        self._supervisor = supervisor
        self._hosts = Hosts(supervisor)
        self._guard = CrashGuard(settings)
        self._compiled = CompiledPartitions(
            settings.compiled_cache_bytes, settings.compiled_cache_directory
        )
        self._gate = gate = LoadGate(
            settings,
            principals,
            descriptors,
            sessions,
            supervisor,
            self._compiled,
            events,
            draining,
        )
        self.held = gate.held
        self.device_checks = gate.device_checks
        returning = Returning(
            principals,
            sessions,
            supervisor,
            gate.admission,
            self._guard,
            self._compiled,
            settings.leaving_seconds,
        )
        self.parking = Parking(settings, descriptors, events, returning, gate.admission.left)
        supervisor.when_pinged.append(self.parking.look)
        sessions.when_closed.append(self._drop_spare)

    def begin(self) -> None:
        """Begin what is done ahead of the first load."""
        self.device_checks.begin()

    async def stop(self) -> None:
        """End what is under way beside loads."""
        await self.device_checks.stop()
        await self._compiled.stop()

    async def load(self, session: Session, parts: Parts) -> Model:
        """Load a model for a session; raises Refusal, and then leaves nothing behind."""
        async with self._gate.admitted(session, Task.LOAD, parts) as load:
            if isinstance(session.principal, NetworkClient) and not load.header.relayed:
                what = "a client of the network has its models relayed: no channel leaves a machine"
                raise refuse(Cause.UNSUPPORTED, what)
            worker = await self._spawn(load)
            digest = await self._receive(load, worker, parts)
            description = await read_description(worker)
            worker.serving = True
            model_id = new_id()
            model = Model(
                model_id=model_id,
                worker=self._home(load, worker, model_id, digest, description),
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
        self._tell_ready(load, digest, worker, model.model_id)
        self._prepare_next(load)
        if model.relay is None:
            loop = asyncio.get_running_loop()
            claim = loop.call_later(self._settings.claim_seconds, _close_unclaimed, model.worker)
            model.worker.when_ended(lambda _: claim.cancel())
        return model

    def _home(
        self,
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
            session=load.session,
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

    def _prepare_next(self, load: Load) -> None:
        """Have a process made for the origin's next load, which is likely to be like this one."""
        owner = load.owner
        if load.session.closed or self._shares_process(owner) or load.devices is not None:
            return
        if not self._sessions.has_room_to_spare(owner.principal):
            return
        self._supervisor.prepare(owner, load.limits, load.header.num_threads)

    def _drop_spare(self, session: Session) -> None:
        """End the process that waits for an origin whose last session is over."""
        mine = self._sessions.of_principal(session.principal)
        if not any(other.origin == session.origin for other in mine):
            self._supervisor.drop_spare(session.owner)

    async def inspect(self, session: Session, parts: Parts) -> Inspection:
        """Read what a file is, in a worker that serves nothing else; raises Refusal."""
        async with self._gate.admitted(session, Task.INSPECT, parts) as load:
            with self._sessions.inspecting(session, load.limits):
                worker = await self._spawn(load)
                digest = await self._receive(load, worker, parts)
                summary = await read_summary(worker)
                await worker.end(Failure(Cause.CLOSED, "the inspection ended"))
        self._tell_ready(load, digest, worker)
        return Inspection(summary, digest, worker)

    def _tell_ready(
        self, load: Load, digest: bytes, worker: Place, model_id: str | None = None
    ) -> None:
        self._events.tell(
            LoadReady(
                owner=load.owner,
                task=load.task.value,
                model_id=model_id,
                sha256=digest.hex(),
                model_bytes=load.received,
                worker_pid=worker.pid,
                seconds=load.age(),
            )
        )

    async def _spawn(self, load: Load) -> Place:
        """Make the worker of a load; raises Refusal."""
        owner, threads = load.owner, load.header.num_threads
        serves = load.task is Task.LOAD
        worker: Place
        # A process that models share has no devices.
        if serves and load.devices is None and self._shares_process(owner):
            worker = await self._hosts.seat(owner, load.limits, threads, load.size)
        else:
            devices = load.devices if serves else None
            worker = await self._supervisor.spawn(
                owner, load.limits, load.task, threads, load.size, devices
            )
        load.adopt(worker)
        _require_layers(worker, load.header.required_layers)
        return worker

    async def _receive(self, load: Load, worker: Place, parts: Parts) -> bytes:
        """Give the worker its model, unless that is known to end it; returns its SHA-256."""
        owner = load.owner
        digest = await self._pass_on(load, worker, parts)
        self._principals.require_model(owner, digest)
        self._guard.check(owner, digest)
        self._guard.watch(owner, digest, worker)
        await worker.end_model()
        # Not before: two who send at a time would be in each other's way.
        if load.devices is not None and load.devices.cache_entry_bytes:
            assert isinstance(worker, Worker)
            token = load.devices.options.cache_token or b""
            worker.exchanges(self._compiled.exchange(owner, digest, token))
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

    def _shares_process(self, owner: Owner) -> bool:
        """Whether the models of an origin share a process."""
        return self._principals.policy_for(owner).isolation == "origin"


def _require_layers(worker: Place, names: Iterable[str]) -> None:
    """Raise Refusal if the worker is not held by these layers of the sandbox."""
    missing = [printable(layer, 64) for layer in sorted(set(names) - set(worker.layers))[:16]]
    if missing:
        reasons = "; ".join(
            f"{layer}: {worker.missing.get(layer, 'there is no layer of that name')}"
            for layer in missing
        )
        raise refuse(
            Cause.UNSUPPORTED,
            f"this host does not give the required layers {', '.join(missing)} ({reasons})",
        )


def _close_unclaimed(worker: Home) -> None:
    """End a model whose caller left between the load and taking the channel."""
    if worker.channel is not None:
        worker.kill(Failure(Cause.CANCELLED, "nobody asked for the model's channel"))
