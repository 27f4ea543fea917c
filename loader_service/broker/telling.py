"""What sessions and their models do, and whether workers can be made, told as events."""

from __future__ import annotations

import time

from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import (
    ModelClosed,
    ModelLost,
    ReadinessChanged,
    SessionClosed,
    SessionOpened,
)
from loader_service.broker.model import Model
from loader_service.broker.readiness import Readiness
from loader_service.broker.sessions import Session, Sessions
from model_loader_wire.causes import Cause


def tell_of(sessions: Sessions, readiness: Readiness, events: EventStream) -> None:
    """Tell of all of them from now on."""

    def opened(session: Session) -> None:
        events.tell(SessionOpened(owner=session.owner))

    def closed(session: Session) -> None:
        living = sum(model.lost is None for model in session.models.values())
        events.tell(SessionClosed(owner=session.owner, models=living))

    def model_ended(session: Session, model: Model) -> None:
        events.tell(_end_of(session, model))

    sessions.when_opened.append(opened)
    sessions.when_closed.append(closed)
    sessions.when_model_ended.append(model_ended)
    readiness.when_changed.append(lambda ready: events.tell(ReadinessChanged(ready=ready)))


def _end_of(session: Session, model: Model) -> ModelClosed | ModelLost:
    assert model.lost is not None
    lived = time.monotonic() - model.loaded_at
    if model.lost.cause in (Cause.CLOSED, Cause.UNAVAILABLE):  # by its owner, or with the service
        return ModelClosed(
            owner=session.owner,
            model_id=model.model_id,
            worker_pid=model.worker.pid,
            reported_calls=model.worker.calls,
            lived_seconds=lived,
        )
    return ModelLost(
        failure=model.lost,
        owner=session.owner,
        model_id=model.model_id,
        sha256=model.sha256.hex(),
        worker_pid=model.worker.pid,
        reported_calls=model.worker.calls,
        lived_seconds=lived,
    )
