"""The gRPC face of the broker: one instance for each principal's socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc

from loader_service.broker.loading import FORMATS, Loading
from loader_service.broker.messages import (
    description_to_message,
    failure_to_message,
    limits_to_message,
)
from loader_service.broker.model import Model
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import PROTOCOL_VERSION, Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.worker import Worker
from model_loader_wire.causes import TABLE, Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import Entry
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc

SESSION_KEY = "model-loader-session"
ERROR_KEY = "model-loader-error-bin"
VERSION = "0.1.0"

Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")


async def abort(context: Context, failure: Failure) -> NoReturn:
    """End a call with the failure's code, message and details."""
    code = grpc.StatusCode[TABLE[failure.cause].grpc_code]
    detail = failure_to_message(failure).SerializeToString()
    await context.abort(code, failure.message, ((ERROR_KEY, detail),))


def edge(
    method: Callable[[Any, Any, Context], Awaitable[Result]],
) -> Callable[[Any, Any, Context], Awaitable[Result]]:
    """Turn a Refusal into a gRPC status, here and nowhere else."""

    @wraps(method)
    async def guarded(self: Any, request: Any, context: Context) -> Result:
        try:
            return await method(self, request, context)
        except Refusal as refusal:
            await abort(context, refusal.failure)

    return guarded


class Servicer(pb_grpc.ModelLoaderServicer):
    """Answers the calls of one principal; a token of any other is refused."""

    def __init__(
        self,
        principal: int,
        settings: Settings,
        sessions: Sessions,
        supervisor: Supervisor,
        loading: Loading,
    ) -> None:
        self._principal = principal
        self._settings = settings
        self._sessions = sessions
        self._supervisor = supervisor
        self._loading = loading

    def _session(self, context: Context) -> Session:
        for key, value in context.invocation_metadata() or ():
            if key == SESSION_KEY:
                try:
                    token = bytes.fromhex(str(value))
                except ValueError:
                    break
                return self._sessions.find(self._principal, token)
        raise refuse(Cause.FORBIDDEN, f"the call carries no session in its metadata {SESSION_KEY}")

    def opened(self, session: Session) -> pb.Session:
        """Say what a new session is."""
        return pb.Session(
            token=session.token,
            origin=session.origin,
            service_version=VERSION,
            limits=limits_to_message(self._settings.limits),
            layers=self._supervisor.layers,
        )

    async def OpenSession(  # noqa: N802 - the name is the protocol's
        self, request: pb.OpenSessionRequest, context: Context
    ) -> AsyncIterator[pb.SessionEvent]:
        """Keep a session open for as long as the caller listens."""
        try:
            check_version(request.protocol_version)
            session = self._sessions.open(self._principal, request.origin)
        except Refusal as refusal:
            await abort(context, refusal.failure)
        try:
            yield pb.SessionEvent(opened=self.opened(session))
            while True:
                model = await session.lost.get()
                yield pb.SessionEvent(lost=_state(model))
        finally:
            await asyncio.shield(self._sessions.close(session))

    @edge
    async def Formats(  # noqa: N802
        self, request: pb.FormatsRequest, context: Context
    ) -> pb.FormatsReply:
        """Say which formats can be loaded."""
        self._session(context)
        return pb.FormatsReply(
            formats=[pb.Format(name=name, versions=versions) for name, versions in FORMATS.items()]
        )

    @edge
    async def Load(  # noqa: N802
        self, request: AsyncIterator[pb.LoadRequest], context: Context
    ) -> pb.LoadReply:
        """Load a model."""
        session = self._session(context)
        model = await self._loading.load(session, request)
        return pb.LoadReply(
            model_id=model.model_id,
            sha256=model.sha256,
            description=description_to_message(model.description),
            isolation=self._isolation(model.worker),
            limits=limits_to_message(model.limits),
        )

    @edge
    async def Inspect(  # noqa: N802
        self, request: AsyncIterator[pb.LoadRequest], context: Context
    ) -> pb.InspectReply:
        """Read what a file is."""
        found = await self._loading.inspect(self._session(context), request)
        return pb.InspectReply(
            summary=found.summary, sha256=found.sha256, isolation=self._isolation(found.worker)
        )

    @edge
    async def Compute(  # noqa: N802
        self, request: pb.ComputeRequest, context: Context
    ) -> pb.ComputeReply:
        """Relay a computation."""
        model = self._living(context, request.model_id)
        if model.relay is None:
            raise refuse(Cause.CLOSED, "this model computes on its direct channel, not relayed")
        entries = [
            Entry(DataType(tensor.data_type), tuple(tensor.dimensions), len(tensor.data))
            for tensor in request.inputs
        ]
        answer = await model.relay.compute(
            request.signature, entries, [tensor.data for tensor in request.inputs]
        )
        return pb.ComputeReply(
            outputs=[
                pb.Tensor(
                    data_type=pb.DataType.Name(int(entry.data_type)),
                    dimensions=entry.dimensions,
                    data=data,
                )
                for entry, data in zip(answer.entries, answer.tensors, strict=True)
            ],
            queue_ns=answer.queue_ns,
            compute_ns=answer.compute_ns,
        )

    @edge
    async def Reset(  # noqa: N802
        self, request: pb.ResetRequest, context: Context
    ) -> pb.ResetReply:
        """Put a relayed model's state back."""
        model = self._living(context, request.model_id)
        if model.relay is None:
            raise refuse(Cause.CLOSED, "this model is reset on its direct channel, not relayed")
        await model.relay.reset()
        return pb.ResetReply()

    @edge
    async def CloseModel(  # noqa: N802
        self, request: pb.CloseModelRequest, context: Context
    ) -> pb.CloseModelReply:
        """End a model's worker."""
        session = self._session(context)
        model = session.models.get(request.model_id)
        if model is not None:
            if request.deadline_passed:
                reason = Failure(Cause.TIMEOUT, "the caller's deadline passed")
            else:
                reason = Failure(Cause.CLOSED, "the model was closed")
                del session.models[request.model_id]
            await model.close(reason)
        return pb.CloseModelReply()

    @edge
    async def GetModel(  # noqa: N802
        self, request: pb.GetModelRequest, context: Context
    ) -> pb.ModelState:
        """Say what became of a model."""
        model = self._session(context).model(request.model_id)
        if model.lost is None and request.wait_seconds > 0:
            seconds = min(request.wait_seconds, 60.0)
            await asyncio.wait([model.worker.ended], timeout=seconds)
        return _state(model)

    @edge
    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsReply:
        """List the principal's models."""
        self._session(context)
        return pb.ListModelsReply(
            models=[
                self._row(model)
                for session in self._sessions.of_principal(self._principal)
                for model in session.models.values()
                if model.lost is None
            ]
        )

    def _living(self, context: Context, model_id: str) -> Model:
        model = self._session(context).model(model_id)
        if model.lost is not None:
            raise refuse(Cause.LOST, f"the model was lost: {model.lost.message}")
        return model

    def _isolation(self, worker: Worker) -> pb.Isolation:
        return pb.Isolation(
            layers=worker.layers,
            missing=[
                pb.MissingLayer(layer=layer, reason=reason)
                for layer, reason in worker.missing.items()
            ],
            memory_held_by=self._supervisor.memory_held_by,
            worker_pid=worker.pid,
        )

    def _row(self, model: Model) -> pb.ModelRow:
        usage = model.worker.usage()
        return pb.ModelRow(
            model_id=model.model_id,
            origin=model.origin,
            label=model.label,
            sha256=model.sha256,
            worker_pid=model.worker.pid,
            isolation=self._isolation(model.worker),
            memory_bytes=usage.memory_bytes,
            cpu_seconds=usage.cpu_seconds,
            calls=model.worker.calls,
            age_seconds=time.monotonic() - model.loaded_at,
            runtime=model.description.runtime,
            limits=limits_to_message(model.limits),
        )


def check_version(version: int) -> None:
    """Raise Refusal for a protocol that this service does not speak."""
    if version != PROTOCOL_VERSION:
        raise refuse(
            Cause.UNSUPPORTED,
            f"the client speaks protocol {version}, the service {PROTOCOL_VERSION}",
        )


def _state(model: Model) -> pb.ModelState:
    lost = model.lost
    return pb.ModelState(
        model_id=model.model_id,
        lost=lost is not None,
        detail=None if lost is None else failure_to_message(lost),
    )
