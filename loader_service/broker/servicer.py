"""The gRPC face of the broker: one instance for each principal's socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from loader_service.broker.device_policy import is_web
from loader_service.broker.edge import Context, edge
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import CallRefused, Computed
from loader_service.broker.groups import Owner
from loader_service.broker.loading import Loading
from loader_service.broker.messages import (
    delegation_to_message,
    description_to_message,
    limits_to_message,
)
from loader_service.broker.named_models import NamedModels
from loader_service.broker.outstanding import InFlight
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import refuse
from loader_service.broker.relay import Answer, Relay
from loader_service.broker.rows import (
    isolation_to_message,
    named_to_message,
    row_to_message,
    state_to_message,
)
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import PROTOCOL_VERSION
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.upload import FORMATS
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.frames import Entry
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc

SESSION_KEY = "model-loader-session"
VERSION = "0.1.0"

LONGEST_WAIT_SECONDS = 60.0


class Servicer(pb_grpc.ModelLoaderServicer):
    """Answers the calls of one principal; a token of any other is refused."""

    def __init__(
        self,
        principal: int,
        principals: Principals,
        sessions: Sessions,
        supervisor: Supervisor,
        loading: Loading,
        named: NamedModels,
        in_flight: InFlight,
        events: EventStream,
    ) -> None:
        self._principal = principal
        self._principals = principals
        self._sessions = sessions
        self._supervisor = supervisor
        self._loading = loading
        self._named = named
        self._in_flight = in_flight
        self._events = events

    def refused(self, method: str, failure: Failure) -> None:
        """Tell that a call was answered with a failure."""
        self._events.tell(CallRefused(user=self._principal, method=method, failure=failure))

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
            limits=limits_to_message(self._principals.policy_for(session.owner).limits),
            layers=self._supervisor.layers,
        )

    @edge
    async def OpenSession(  # noqa: N802 - the names are the protocol's
        self, request: pb.OpenSessionRequest, context: Context
    ) -> None:
        """Keep a session open for as long as the caller listens."""
        check_version(request.protocol_version)
        self._principals.require(self._principal)
        session = self._sessions.open(self._principal, request.origin)
        try:
            await context.write(pb.SessionEvent(opened=self.opened(session)))
            while (model := await session.events.get()) is not None:
                await context.write(pb.SessionEvent(lost=state_to_message(model)))
        finally:
            await asyncio.shield(self._sessions.close(session))
        raise refuse(Cause.UNAVAILABLE, "the service ended")

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
            description=description_to_message(model.declaration()),
            isolation=isolation_to_message(
                model.worker, self._supervisor.memory_held_by, coarse=model.coarse
            ),
            limits=limits_to_message(model.limits),
        )

    @edge
    async def Inspect(  # noqa: N802
        self, request: AsyncIterator[pb.LoadRequest], context: Context
    ) -> pb.InspectReply:
        """Read what a file is."""
        found = await self._loading.inspect(self._session(context), request)
        return pb.InspectReply(
            summary=found.summary,
            sha256=found.sha256,
            isolation=isolation_to_message(found.worker, self._supervisor.memory_held_by),
        )

    @edge
    async def FindModel(  # noqa: N802
        self, request: pb.FindModelRequest, context: Context
    ) -> pb.FindModelReply:
        """Say whether a model's bytes are here already."""
        return pb.FindModelReply(
            offer=self._loading.held.find(self._session(context), request.sha256)
        )

    @edge
    async def FindNamedModel(  # noqa: N802
        self, request: pb.FindNamedModelRequest, context: Context
    ) -> pb.FindNamedModelReply:
        """Name the bytes of a model of the repository for the next load."""
        session = self._session(context)
        self._principals.require(session.principal)
        served = await self._named.find(request.name, request.version)
        offer = self._loading.held.lend(session, served.content)
        return pb.FindNamedModelReply(offer=offer, model=named_to_message(served))

    @edge
    async def ListNamedModels(  # noqa: N802
        self, request: pb.ListNamedModelsRequest, context: Context
    ) -> pb.ListNamedModelsReply:
        """List the repository's models that can be loaded."""
        self._session(context)
        return pb.ListNamedModelsReply(models=map(named_to_message, self._named.served()))

    @edge
    async def Compute(  # noqa: N802
        self, request: pb.ComputeRequest, context: Context
    ) -> pb.ComputeReply:
        """Relay a computation."""
        owner, relay, limits = self._relay(context, request.model_id)
        entries = [
            Entry(_data_type(tensor.data_type), tuple(tensor.dimensions), len(tensor.data))
            for tensor in request.inputs
        ]
        size = sum(entry.byte_length for entry in entries)
        with self._in_flight.held(owner, size, limits):
            answer = await relay.compute(
                request.signature, entries, [tensor.data for tensor in request.inputs]
            )
        self._tell(owner, request.model_id, size, answer)
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
        owner, relay, limits = self._relay(context, request.model_id)
        with self._in_flight.held(owner, 0, limits):
            await relay.reset()
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
            await model.worker.end(reason)
        return pb.CloseModelReply()

    @edge
    async def GetModel(  # noqa: N802
        self, request: pb.GetModelRequest, context: Context
    ) -> pb.ModelState:
        """Say what became of a model."""
        model = self._session(context).model(request.model_id)
        if request.wait_seconds > 0:
            await model.worker.wait(min(request.wait_seconds, LONGEST_WAIT_SECONDS))
        return state_to_message(model)

    @edge
    async def GetDelegation(  # noqa: N802
        self, request: pb.GetDelegationRequest, context: Context
    ) -> pb.GetDelegationReply:
        """Say which device runs what of a model."""
        model = self._session(context).model(request.model_id)
        model.require_living()
        delegation = model.delegation()
        return pb.GetDelegationReply(
            delegation=None if delegation is None else delegation_to_message(delegation)
        )

    @edge
    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsReply:
        """List the principal's models."""
        owner = self._session(context).owner
        coarse = is_web(self._principals.policy_for(owner), owner)
        return pb.ListModelsReply(
            models=[
                row_to_message(model, self._supervisor.memory_held_by, coarse=coarse)
                for session in self._sessions.of_principal(self._principal)
                for model in session.models.values()
                if model.lost is None
            ]
        )

    def _tell(self, owner: Owner, model_id: str, input_bytes: int, answer: Answer) -> None:
        phases = answer.times.phases(answer.compute_ns)
        self._events.tell(
            Computed(
                owner=owner,
                model_id=model_id,
                input_bytes=input_bytes,
                output_bytes=sum(len(tensor) for tensor in answer.tensors),
                send_seconds=phases.send,
                queue_seconds=phases.queue,
                compute_seconds=phases.compute,
                reply_seconds=phases.reply,
            )
        )

    def _relay(self, context: Context, model_id: str) -> tuple[Owner, Relay, Limits]:
        session = self._session(context)
        model = session.model(model_id)
        model.require_living()
        if model.relay is None:
            raise refuse(Cause.CLOSED, "this model was not loaded to be relayed: it has a channel")
        return session.owner, model.relay, model.limits


def check_version(version: int) -> None:
    """Raise Refusal for a protocol that this service does not speak."""
    if version != PROTOCOL_VERSION:
        raise refuse(
            Cause.UNSUPPORTED,
            f"the client speaks protocol {version}, the service {PROTOCOL_VERSION}",
        )


def _data_type(code: int) -> DataType:
    try:
        return DataType(code)
    except ValueError:
        raise refuse(Cause.INVALID_INPUT, f"there is no data type {code}") from None
