"""Bringing a parked model back: a load from the bytes that were kept, with the same checks."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import monotonic

from loader_service.broker.admission import Admission
from loader_service.broker.channels import KeptChannel
from loader_service.broker.compiled_exchange import CompiledPartitions
from loader_service.broker.crash_guard import CrashGuard
from loader_service.broker.device_policy import DeviceOrder, as_of_now, without_missing
from loader_service.broker.load import late
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.reports import read_description
from loader_service.broker.sessions import Session, Sessions
from loader_service.broker.supervisor import Supervisor
from loader_service.broker.upload import pass_on_held
from loader_service.broker.worker import Worker
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import ModelDescription
from model_loader_wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Original:
    """A model as it was loaded: what comes back must be the same."""

    session: Session
    limits: Limits
    num_threads: int
    layers: tuple[str, ...]
    """The layers that held its worker."""
    devices: DeviceOrder | None
    content: ModelBytes
    sha256: bytes
    description: ModelDescription


class Returning:
    """Loads parked models again. Their limits and options are those of their first load."""

    def __init__(
        self,
        principals: Principals,
        sessions: Sessions,
        supervisor: Supervisor,
        admission: Admission,
        guard: CrashGuard,
        compiled: CompiledPartitions,
        patience: float,
    ) -> None:
        """Wait `patience` seconds for memory that is just being given back."""
        self._principals = principals
        self._sessions = sessions
        self._supervisor = supervisor
        self._admission = admission
        self._guard = guard
        self._compiled = compiled
        self._patience = patience

    async def bring_back(self, original: Original, channel: KeptChannel) -> Worker:
        """Make a worker that serves the model on its channel; raises Refusal.

        What has changed meanwhile holds: who may use the service, which models may be loaded,
        which devices are enabled, and how many processes and how much memory there may be.
        """
        session, limits, content = original.session, original.limits, original.content
        owner = session.owner
        self._principals.require(session.principal)
        self._principals.require_model(owner, original.sha256)
        self._guard.check(owner, original.sha256)
        self._sessions.check_return(session, limits)
        devices = original.devices
        if devices is not None:
            devices = without_missing(as_of_now(devices, self._principals.policy_for(owner)))
        began = monotonic()
        try:
            async with (
                self._admission.held(owner, limits, content.size, self._patience),
                asyncio.timeout(limits.load_seconds),
            ):
                worker = await self._supervisor.spawn(
                    owner,
                    limits,
                    Task.LOAD,
                    original.num_threads,
                    content.size,
                    devices,
                    channel,
                )
                try:
                    await self._load(original, worker)
                except asyncio.CancelledError:
                    worker.kill(Failure(Cause.CANCELLED, "the model did not come back in time"))
                    raise
                except BaseException:
                    worker.kill(Failure(Cause.CANCELLED, "the model did not come back"))
                    raise
        except TimeoutError:
            raise Refusal(late(monotonic() - began, limits.load_seconds or 0)) from None
        worker.serving = True
        return worker

    async def _load(self, original: Original, worker: Worker) -> None:
        owner = original.session.owner
        if lacking := sorted(set(original.layers) - set(worker.layers)):
            raise refuse(
                Cause.UNSUPPORTED,
                f"this host does not give the layers {', '.join(lacking)} any more",
            )
        digest = await pass_on_held(worker, original.content)
        self._guard.watch(owner, digest, worker)
        await worker.end_model()
        order = original.devices
        if order is not None and order.cache_entry_bytes:
            token = order.options.cache_token or b""
            worker.exchanges(self._compiled.exchange(owner, digest, token))
        description = await read_description(worker)
        if description.signatures != original.description.signatures:
            what = "the model declares itself otherwise than before it was parked"
            raise Refusal(await worker.end(Failure(Cause.PROTOCOL_VIOLATION, what)))
        if description.delegation is not None:
            # Its devices may run something else of it than before.
            worker.reported = json.dumps(description.delegation.to_values()).encode()
