"""What a load passes before it gets a worker: its header, its limits, and everything counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from time import monotonic

from loader_service.broker.compiled_exchange import CompiledPartitions
from loader_service.broker.descriptors import Descriptors
from loader_service.broker.device_checks import DeviceChecks
from loader_service.broker.device_policy import (
    DeviceOrder,
    device_order,
    require_honoured,
    without_missing,
)
from loader_service.broker.draining import Draining
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import LoadBegan, LoadFailed
from loader_service.broker.held_models import HeldModels
from loader_service.broker.load import Load, late
from loader_service.broker.messages import limits_from_message
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.outstanding import LiveBound, LoadRate, Outstanding, bounds
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.settings import Settings
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.upload import Parts, check_header, check_size, read_header
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import LimitRaised, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb


class LoadGate:
    """Lets in the loads that may be, counts each until it is over, and tells of its failure."""

    def __init__(
        self,
        settings: Settings,
        principals: Principals,
        descriptors: Descriptors,
        sessions: Sessions,
        supervisor: Supervisor,
        compiled: CompiledPartitions,
        events: EventStream,
        draining: Draining,
    ) -> None:
        self._patience = settings.leaving_seconds
        self._principals = principals
        self._sessions = sessions
        self._supervisor = supervisor
        self._compiled = compiled
        self._events = events
        self._draining = draining
        self.admission = supervisor.admission()
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
        self.device_checks = DeviceChecks(principals, supervisor.rehearse_with)

    @asynccontextmanager
    async def admitted(self, session: Session, task: Task, parts: Parts) -> AsyncIterator[Load]:
        """Read a load's header and count it; its deadline and its failure end its worker.

        Raises Refusal.
        """
        with self._telling_of_failure(session, task):
            async with self._checked(session, task, parts) as load:
                self._events.tell(
                    LoadBegan(owner=session.owner, task=task.value, announced_bytes=load.size)
                )
                yield load

    @contextmanager
    def _telling_of_failure(self, session: Session, task: Task) -> Iterator[None]:
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
                LoadFailed(owner=session.owner, task=task.value, failure=failure, seconds=seconds)
            )
            raise

    @asynccontextmanager
    async def _checked(self, session: Session, task: Task, parts: Parts) -> AsyncIterator[Load]:
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
            async with self._counted(session, task, header, limits, content) as load:
                yield load

    @asynccontextmanager
    async def _counted(
        self,
        session: Session,
        task: Task,
        header: pb.LoadHeader,
        limits: Limits,
        content: ModelBytes | None,
    ) -> AsyncIterator[Load]:
        size = header.size if content is None else content.size
        check_size(size, limits)
        owner = session.owner
        devices = await self._devices(session, header, limits)
        self._rate.count(owner, limits.loads_per_minute or 0)
        await self._sessions.admit(session, limits, self._patience)
        try:
            async with self.admission.held(owner, limits, size, self._patience):
                with self._uploads.held(owner, size, limits.upload_bytes or 0) as count_upload:
                    load = Load(session, task, header, limits, size, content, count_upload, devices)
                    async with load.ended_with_failure(), asyncio.timeout(limits.load_seconds):
                        yield load
        except TimeoutError:
            raise Refusal(late(load.age(), limits.load_seconds or 0)) from None
        finally:
            session.loading -= 1

    async def _devices(
        self, session: Session, header: pb.LoadHeader, limits: Limits
    ) -> DeviceOrder | None:
        """Decide on a load's devices, by the operator's policy and by their self-tests."""
        owner = session.owner
        devices = device_order(self._principals.policy_for(owner), owner, header)
        try:
            async with asyncio.timeout(limits.load_seconds):
                devices = await self.device_checks.checked(devices)
        except TimeoutError:
            seconds = limits.load_seconds or 0
            raise Refusal(late(seconds, seconds)) from None
        if devices is None:
            return None
        devices = without_missing(devices)
        require_honoured(devices.options, devices.enabled)
        if devices.options.cache_token is not None:
            devices = replace(devices, cache_entry_bytes=self._compiled.entry_bytes)
        return devices

    def _limits(self, session: Session, header: pb.LoadHeader) -> Limits:
        """Work out the limits of one model; raises Refusal for what cannot be enforced here."""
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
