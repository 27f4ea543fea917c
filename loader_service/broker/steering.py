"""What an administrator can see and do, apart from how it is asked for."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import psutil

from loader_service.broker import descriptors
from loader_service.broker.device_checks import DeviceChecks
from loader_service.broker.draining import Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import EndedByAdministrator
from loader_service.broker.limiting import Limiting
from loader_service.broker.living import Living
from loader_service.broker.memory import own_bytes
from loader_service.broker.network_client import NOBODY, NetworkClient, label_of
from loader_service.broker.parkable import Home
from loader_service.broker.refusal import refuse
from loader_service.broker.rows import row_to_message
from loader_service.broker.servicer import VERSION
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import admin_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2 as model_pb

KILLED = Failure(Cause.KILLED, "an administrator ended it")


class Steering:
    """One for the broker, whoever steers it."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        supervisor: Supervisor,
        living: Living,
        events: EventStream,
        draining: Draining,
        limiting: Limiting,
        device_checks: DeviceChecks,
    ) -> None:
        self.events = events
        self.draining = draining
        self.limiting = limiting
        self._settings = settings
        self._sessions = sessions
        self._supervisor = supervisor
        self._living = living
        self._device_checks = device_checks
        self._process = psutil.Process()

    def status(self) -> pb.StatusReply:
        """Say how the service is, and what each user holds."""
        supervisor = self._supervisor
        times = self._process.cpu_times()
        self._living.look_anew()
        cpu = self._living.cpu_seconds()
        return pb.StatusReply(
            version=VERSION,
            pid=os.getpid(),
            uid=os.geteuid(),
            directory=self._settings.directory,
            runtime=f"{supervisor.runtime.runtime} {supervisor.runtime.version}",
            uptime_seconds=time.time() - self._process.create_time(),
            ready=supervisor.readiness.ready,
            draining=self.draining.active,
            isolation=self._settings.isolation,
            layers=supervisor.layers,
            missing=[
                model_pb.MissingLayer(layer=layer, reason=reason)
                for layer, reason in supervisor.missing.items()
            ],
            memory_held_by=supervisor.memory_held_by,
            total_memory_bytes=supervisor.total_memory_bytes,
            workers=supervisor.count,
            service_memory_bytes=own_bytes(),
            service_cpu_seconds=times.user + times.system,
            open_descriptors=descriptors.in_use(),
            users=[
                pb.UserStatus(
                    **user_fields(user),
                    sessions=share.sessions,
                    models=share.models,
                    loading=share.loading,
                    memory_bytes=share.memory_bytes,
                    cpu_seconds=cpu.get(user, 0.0),
                )
                for user, share in sorted(self._living.of_users().items())
            ],
            devices=[
                pb.DeviceStatus(
                    device=device.name,
                    tested=found is not None,
                    disabled="" if found is None else found.disabled,
                )
                for device, found in self._device_checks.found()
            ],
        )

    def rows(self) -> list[pb.AdminRow]:
        """List the living models of every user."""
        held_by = self._supervisor.memory_held_by
        return [
            pb.AdminRow(**user_fields(session.principal), model=row_to_message(model, held_by))
            for session in self._sessions.all()
            for model in session.models.values()
            if model.lost is None
        ]

    def models_left(self) -> int:
        """Count what a drain waits for: models, and loads under way."""
        return self._living.models_left()

    async def kill_model(self, by: str, model_id: str) -> int:
        """End one model; raises Refusal if there is none of that name."""
        for session in self._sessions.all():
            model = session.models.get(model_id)
            if model is not None and model.lost is None:
                return await self._kill(by, f"model {model_id}", [model.worker])
        raise refuse(Cause.INVALID_INPUT, f"no model that lives has the id {model_id[:64]!r}")

    async def kill_user(self, by: str, user: int, origin: str | None) -> int:
        """End all models of a user, or of one origin, those that are loading too."""
        name = f"user {label_of(user)}"
        target = name if origin is None else f"origin {origin[:200]!r} of {name}"
        sessions = self._sessions.of_principal(user)
        chosen = [item for item in sessions if origin is None or item.origin == origin]
        return await self._kill(by, target, [place for item in chosen for place in _places(item)])

    async def _kill(self, by: str, target: str, places: list[Home]) -> int:
        await asyncio.gather(*(place.end(KILLED) for place in places))
        self.events.tell(EndedByAdministrator(by=by, target=target, models=len(places)))
        return len(places)


def user_fields(principal: int) -> dict[str, Any]:
    """Write a principal into a message that has a user and a client."""
    if isinstance(principal, NetworkClient):
        return {"user": NOBODY, "client": principal.name}
    return {"user": principal}


def _places(session: Session) -> list[Home]:
    """Return where a session's models live, and where they are coming to."""
    living = [model.worker for model in session.models.values() if model.lost is None]
    return [*living, *session.unfinished]
