"""``grpc.health.v1`` on each principal's socket: of the service, and of each of their models.

``""`` is SERVING while workers can be made. ``model/ID`` is SERVING until that model's process is
dead; for a model of another principal the answer is that of a name that there is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loader_service.broker.edge import Context
from loader_service.broker.model import Model
from loader_service.broker.readiness import Readiness
from loader_service.broker.sessions import Sessions

MODEL = "model/"
LOOK_SECONDS = 60.0
"""One wait for a death; the next one follows."""

Reply = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Tells one principal what lives. The socket says who asks: no session is needed."""

    def __init__(self, principal: int, sessions: Sessions, readiness: Readiness) -> None:
        self._principal = principal
        self._sessions = sessions
        self._readiness = readiness

    async def Check(  # noqa: N802 - the names are the protocol's
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Say how it is now; the status is NOT_FOUND for a name that there is not."""
        if request.service == "":
            return _reply(self._readiness.ready)
        model = self._model(request.service)
        if model is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is nothing of that name")
        return _reply(model.lost is None)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Say how it is now, and each change, until the caller leaves."""
        states = self._service() if request.service == "" else self._life(request.service)
        async for state in states:
            await context.write(state)
        # The protocol has the stream go on: only its caller ends it.
        await asyncio.Event().wait()

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """Say how the service is now, and each of the principal's models."""
        statuses = {"": _reply(self._readiness.ready)}
        for session in self._sessions.of_principal(self._principal):
            for model in session.models.values():
                statuses[MODEL + model.model_id] = _reply(model.lost is None)
        return health_pb2.HealthListResponse(statuses=statuses)

    def _model(self, name: str) -> Model | None:
        """Find the principal's model of that name."""
        model_id = name.removeprefix(MODEL)
        if model_id == name:
            return None
        for session in self._sessions.of_principal(self._principal):
            if model_id in session.models:
                return session.models[model_id]
        return None

    async def _service(self) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        while True:
            change = self._readiness.change
            yield _reply(self._readiness.ready)
            await change.wait()

    async def _life(self, name: str) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        # Names are never given again, so that neither an unknown one nor a dead one can change.
        model = self._model(name)
        if model is None:
            yield Reply(status=Reply.SERVICE_UNKNOWN)
            return
        if model.lost is None:
            yield _reply(True)
        while await model.worker.wait(LOOK_SECONDS) is None:
            continue
        yield _reply(False)


def _reply(serving: bool) -> health_pb2.HealthCheckResponse:
    return Reply(status=Reply.SERVING if serving else Reply.NOT_SERVING)
