"""The broker: its parts put together, started and ended."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc

from loader_service.broker import event_log
from loader_service.broker.attach import AttachServer
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.directory import Directory
from loader_service.broker.draining import LOOK_SECONDS, Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import ServiceEnding, ServiceReady
from loader_service.broker.grpc_servers import GrpcServers
from loader_service.broker.health import Health
from loader_service.broker.limiting import Limiting
from loader_service.broker.living import Living
from loader_service.broker.loading import Loading
from loader_service.broker.named_models import NamedModels
from loader_service.broker.outstanding import InFlight
from loader_service.broker.principals import Principals
from loader_service.broker.reloading import Reloading
from loader_service.broker.servicer import VERSION, Servicer
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.steering import Steering
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.telling import tell_of
from loader_service.broker.verification import Verification
from loader_service.broker.zygote import Zygote
from loader_service.sandbox.cgroup import Tree
from model_loader_wire.v1 import attach_pb2 as attach
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from loader_service.broker.administration import Administration
    from loader_service.broker.measuring import Measuring
    from loader_service.broker.network_port import Collected

log = logging.getLogger("model_loader.broker")


class Broker:
    """One service: a directory of sockets, sessions, and the workers behind them."""

    def __init__(
        self, settings: Settings, directory: Directory, tree: Tree | None, zygote: Zygote
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._events = EventStream()
        self._events.add_reader(event_log.write)
        self._principals = principals = Principals(settings)
        self._sessions = Sessions(settings, principals)
        self._descriptors = Descriptors(settings, principals)
        self._supervisor = Supervisor(
            settings, principals, self._descriptors, tree, zygote, self._events
        )
        self._living = Living(self._sessions)
        self._events.add_reader(self._living.count)
        tell_of(self._sessions, self._supervisor.readiness, self._events)
        self._draining = Draining(
            self._supervisor.readiness, self._events, self._living.models_left
        )
        self._loading = Loading(
            settings,
            principals,
            self._descriptors,
            self._sessions,
            self._supervisor,
            self._events,
            self._draining,
        )
        self._administration: Administration | None = None
        self._measuring: Measuring | None = None
        verification = Verification(self._sessions, self._loading)
        self._named = NamedModels(settings, verification.verify)
        self.reloading = Reloading(principals, self._supervisor, self._events)
        self._in_flight = InFlight(principals)
        self._servers = GrpcServers(
            settings, directory, principals, self._descriptors, self._events, self._add_methods
        )
        self._attach: AttachServer | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Become ready: workers can be made and clients attach. Raises Refusal or OSError."""
        # Its own user's server gets ready while the zygote warms up.
        await self._servers.of(os.geteuid())
        await self._supervisor.start()
        await self._let_it_be_watched()
        self._attach = AttachServer(
            self._directory.attach_path,
            self._settings,
            self._principals,
            self._descriptors,
            self._sessions,
            self._welcome,
            self._loading.held.offer,
            self._events,
        )
        self._accepting = asyncio.create_task(self._attach.serve())
        await self._servers.open_port()
        self._named.start()
        self._loading.begin()
        log.info(
            "ready in %s: %s %s, memory held by %s, %d bytes for all workers, layers: %s",
            self._directory.path,
            self._supervisor.runtime.runtime,
            self._supervisor.runtime.version,
            self._supervisor.memory_held_by,
            self._supervisor.total_memory_bytes,
            ", ".join(self._supervisor.layers),
        )
        runtime = self._supervisor.runtime
        self._events.tell(
            ServiceReady(version=VERSION, runtime=f"{runtime.runtime} {runtime.version}")
        )
        for layer, reason in self._supervisor.missing.items():
            log.warning("this host does not give the layer %s: %s", layer, reason)
        if self._settings.isolation == "origin":
            log.warning("the models of an origin share a process, as it was asked for")

    def status(self) -> str:
        """Say in one line how the service is."""
        readiness = self._supervisor.readiness
        able = "ready" if readiness.able else "no worker can be made, see the log"
        models = self._living.models_left()
        return f"{'draining' if readiness.draining else able}; models: {models}"

    def when_readiness_changes(self, call: Callable[[bool], None]) -> None:
        """Have it called with whether models are taken in, at each change."""
        self._supervisor.readiness.when_changed.append(call)

    async def answers(self) -> bool:
        """Whether what makes workers answers."""
        return await self._supervisor.zygote_answers()

    async def drain(self, by: str, seconds: float) -> None:
        """Let in no more models, and end each that there is once it computes nothing.

        `drained` is set when none is left, or after so long.
        """
        self._draining.begin(by, seconds)
        while not self.drained.is_set():
            # Again and again: a load that was let in before may only now have its worker.
            self._supervisor.finish()
            self._loading.parking.end_parked()
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def drained(self) -> asyncio.Event:
        """Set when a drain is over, and the service is to end."""
        return self._draining.over

    async def _let_it_be_watched(self) -> None:
        """Open the admin socket and serve the metrics, as the settings say."""
        settings = self._settings
        if settings.admin:
            from loader_service.broker.administration import Administration

            steering = Steering(
                settings,
                self._sessions,
                self._supervisor,
                self._living,
                self._events,
                self._draining,
                Limiting(self._principals, self._supervisor, self._events),
                self._loading.device_checks,
            )
            self._administration = Administration(self._directory, steering)
            await self._administration.start()
        if settings.metrics or settings.metrics_port is not None:
            from loader_service.broker.measuring import Measuring

            self._measuring = Measuring(settings, self._supervisor, self._living, self._events)
            await self._measuring.start(self._directory.metrics_path)

    async def stop(self) -> None:
        """End every session, worker and server, and remove the directory."""
        try:
            self._draining.stop()
            if self._measuring is not None:
                await self._measuring.stop()
            if self._administration is not None:
                await self._administration.stop()
            if self._accepting is not None:
                self._accepting.cancel()
                await asyncio.wait([self._accepting])
            if self._attach is not None:
                await self._attach.stop()
            self._events.tell(ServiceEnding())
            await self._named.stop()
            await self._loading.stop()
            self._supervisor.readiness.set(False)
            self._sessions.service_ends()
            await self._servers.stop()
            self._loading.parking.end_parked()
            await self._supervisor.stop()
        finally:
            self._directory.remove()

    async def _welcome(self, session: Session) -> attach.Welcome:
        path, servicer = await self._servers.of(session.principal)
        return attach.Welcome(session=servicer.opened(session), grpc_path=path)

    def _add_methods(self, principal: int, server: grpc.aio.Server | Collected) -> Servicer:
        """Add a principal's methods to a server."""
        servicer = Servicer(
            principal,
            self._principals,
            self._sessions,
            self._supervisor,
            self._loading,
            self._named,
            self._in_flight,
            self._events,
        )
        pb_grpc.add_ModelLoaderServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        health = Health(principal, self._sessions, self._supervisor.readiness)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        return servicer
