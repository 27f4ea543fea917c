"""The gRPC face of steering: what root and the service's own user can see and do."""

from __future__ import annotations

import logging

from loader_service.broker.edge import Context, edge
from loader_service.broker.event_stream import Told
from loader_service.broker.events import CallRefused, Fact
from loader_service.broker.network_client import NetworkClient
from loader_service.broker.refusal import refuse
from loader_service.broker.settings import SERVICE_POLICY
from loader_service.broker.steering import Steering
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.v1 import admin_pb2 as pb
from model_loader_wire.v1 import admin_pb2_grpc as pb_grpc

LONGEST_DRAIN_SECONDS = 7 * 24 * 3600.0


class AdminServicer(pb_grpc.AdminServicer):
    """Answers one administrator; the gate has asked the kernel who it is."""

    def __init__(self, uid: int, steering: Steering) -> None:
        self._uid = uid
        self._by = f"uid {uid}"
        self._steering = steering

    def refused(self, method: str, failure: Failure) -> None:
        """Tell that a call was answered with a failure."""
        self._steering.events.tell(CallRefused(user=self._uid, method=method, failure=failure))

    @edge
    async def Status(  # noqa: N802 - the names are the protocol's
        self, request: pb.StatusRequest, context: Context
    ) -> pb.StatusReply:
        """Say how the service is."""
        return self._steering.status()

    @edge
    async def List(  # noqa: N802
        self, request: pb.ListRequest, context: Context
    ) -> pb.ListReply:
        """List the models of every user."""
        return pb.ListReply(rows=self._steering.rows())

    @edge
    async def Events(  # noqa: N802
        self, request: pb.EventsRequest, context: Context
    ) -> None:
        """Tell what was kept, and, if asked to, what happens from now on."""
        stream = self._steering.events
        level = logging.DEBUG if request.all else logging.INFO
        with stream.followed(level) as follower:
            for told in stream.kept():
                await context.write(event_to_message(told))
            if not request.follow:
                return
            reported = 0
            while True:
                told = await follower.next()
                missed, reported = follower.left_out - reported, follower.left_out
                await context.write(event_to_message(told, missed))

    @edge
    async def Kill(  # noqa: N802
        self, request: pb.KillRequest, context: Context
    ) -> pb.KillReply:
        """End models at once."""
        if request.model_id:
            if request.HasField("user") or request.client or request.HasField("origin"):
                raise refuse(Cause.INVALID_INPUT, "name a model, or a user, and not both")
            return pb.KillReply(models=await self._steering.kill_model(self._by, request.model_id))
        if request.HasField("user") == bool(request.client):
            raise refuse(Cause.INVALID_INPUT, "name a model or a user; an origin is a user's")
        origin = request.origin if request.HasField("origin") else None
        user = NetworkClient(request.client) if request.client else request.user
        return pb.KillReply(models=await self._steering.kill_user(self._by, user, origin))

    @edge
    async def Drain(  # noqa: N802
        self, request: pb.DrainRequest, context: Context
    ) -> pb.DrainReply:
        """Let the service run dry, or call that off."""
        draining = self._steering.draining
        if request.cancel:
            draining.cancel(self._by)
        elif 0 <= request.seconds <= LONGEST_DRAIN_SECONDS:
            draining.begin(self._by, request.seconds)
        else:
            raise refuse(
                Cause.INVALID_INPUT,
                f"a drain lasts 0 to {LONGEST_DRAIN_SECONDS:.0f} seconds, not {request.seconds:g}",
            )
        return pb.DrainReply(models=self._steering.models_left())

    @edge
    async def ShowLimits(  # noqa: N802
        self, request: pb.ShowLimitsRequest, context: Context
    ) -> pb.LimitList:
        """Show the limits in force."""
        return self._limits(request.policy or SERVICE_POLICY)

    @edge
    async def SetLimits(  # noqa: N802
        self, request: pb.SetLimitsRequest, context: Context
    ) -> pb.LimitList:
        """Give limits other values, all or none."""
        policy = request.policy or SERVICE_POLICY
        values = {
            item.name: item.value if item.HasField("value") else None for item in request.limits
        }
        self._steering.limiting.set(self._by, policy, values)
        return self._limits(policy)

    def _limits(self, policy: str) -> pb.LimitList:
        limiting = self._steering.limiting
        return pb.LimitList(
            limits=[
                pb.LimitRow(
                    name=row.name,
                    value=row.value,
                    at_start=row.at_start,
                    settable=row.settable,
                )
                for row in limiting.rows(policy)
            ],
            policies=limiting.policies(),
        )


def event_to_message(told: Told, left_out: int = 0) -> pb.Event:
    """Write an event."""
    event = told.event
    return pb.Event(
        number=told.number,
        unix_seconds=told.unix_seconds,
        kind=event.kind,
        level=logging.getLevelName(event.level).lower(),
        request=told.request,
        facts=[_fact(name, value) for name, value in event.facts().items()],
        left_out=left_out,
    )


def _fact(name: str, value: Fact) -> pb.Fact:
    match value:
        case bool():
            return pb.Fact(name=name, flag=value)
        case int():
            return pb.Fact(name=name, whole=value)
        case float():
            return pb.Fact(name=name, number=value)
    return pb.Fact(name=name, text=value)
