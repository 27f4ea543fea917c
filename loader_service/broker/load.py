"""One load under way: what it is for, its deadline, and what its failure ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from loader_service.broker.device_policy import DeviceOrder
from loader_service.broker.groups import Owner
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.refusal import refuse
from loader_service.broker.seat import Place
from loader_service.broker.sessions import Session
from loader_service.worker.orders import Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import Limits
from model_loader_wire.v1 import model_loader_pb2 as pb


class Load:
    """A load that was admitted; whatever ends it badly ends its worker."""

    def __init__(
        self,
        session: Session,
        task: Task,
        header: pb.LoadHeader,
        limits: Limits,
        size: int,
        content: ModelBytes | None,
        count_upload: Callable[[int], None],
        devices: DeviceOrder | None,
    ) -> None:
        self.session = session
        self.task = task
        self.header = header
        self.limits = limits
        self.size = size
        """Bytes of model to come; 0 if not known beforehand."""
        self.content = content
        """The model's bytes as sealed memory, where they are held."""
        self.received = 0 if content is None else content.size
        """Bytes of the model that have come."""
        self._count_upload = count_upload
        self.devices = devices
        """What it gets of devices; None for a load that has nothing to do with them."""
        self._worker: Place | None = None
        self._began = monotonic()

    def count_upload(self, received: int) -> None:
        """Take note of how many bytes of the model have come; raises Refusal for too many."""
        self._count_upload(received)
        self.received = received

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        return self.session.owner

    def age(self) -> float:
        """Seconds since the header came."""
        return monotonic() - self._began

    def adopt(self, worker: Place) -> None:
        """Let the worker end with the load, or with its session; raises Refusal if that is over."""
        self._worker = worker
        if self.session.closed:
            raise refuse(Cause.CLOSED, "the session was closed while the model was loading")
        self.session.unfinished.add(worker)

    def hold(self, content: ModelBytes) -> None:
        """Take over the model's bytes until the load is over."""
        self.content = content

    @asynccontextmanager
    async def ended_with_failure(self) -> AsyncIterator[None]:
        """Kill the worker if the block is left by an exception; a reason before that one stays."""
        try:
            yield
        except TimeoutError:
            self._kill(late(self.age(), self.limits.load_seconds or 0))
            raise
        except BaseException:
            self._kill(Failure(Cause.CANCELLED, "the load was given up"))
            raise
        finally:
            if self.content is not None:
                self.content.close()
            if self._worker is not None:
                self.session.unfinished.discard(self._worker)

    def _kill(self, reason: Failure) -> None:
        if self._worker is not None:
            self._worker.kill(reason)


def late(seconds: float, maximum: float) -> Failure:
    """Say that a load passed its deadline."""
    message = f"the load took longer than load_seconds = {maximum:g}"
    return Failure(Cause.TIMEOUT, message, "load_seconds", seconds, maximum, model_lost=True)
