"""Which models are parked, and when: those that were not called for long, and under pressure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from time import monotonic

from loader_service.broker.descriptors import OF_A_PARKABLE, Descriptors
from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import ModelParked, ModelReturned, ReturnFailed
from loader_service.broker.groups import Owner
from loader_service.broker.model_bytes import ModelBytes
from loader_service.broker.parkable import ParkableWorker
from loader_service.broker.refusal import Refusal
from loader_service.broker.returning import Original, Returning
from loader_service.broker.settings import Settings
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure

SERVICE_ENDED = Failure(Cause.UNAVAILABLE, "the service ended")


class Parking:
    """All models of a broker that may be parked."""

    def __init__(
        self,
        settings: Settings,
        descriptors: Descriptors,
        events: EventStream,
        returning: Returning,
        memory_left: Callable[[], int],
    ) -> None:
        """`memory_left` says how many bytes are left for workers."""
        self._settings = settings
        self._descriptors = descriptors
        self._events = events
        self._returning = returning
        self._memory_left = memory_left
        self._bytes: Counter[int] = Counter()
        """Of each principal's models."""
        self._places: dict[ParkableWorker, None] = {}

    def takes(self, principal: int, size: int) -> bool:
        """Whether a model of so many bytes could be parked."""
        room = self._settings.parked_model_bytes - self._bytes[principal]
        return self._settings.parks and 0 < size <= room

    def home(self, model_id: str, worker: Worker, original: Original) -> ParkableWorker | None:
        """Take over a worker that has loaded a model, if that can be parked.

        Not one that keeps state, which would be lost, nor one for whose bytes there is no room.
        """
        end, worker.kept_end = worker.kept_end, None
        if end is None:
            return None
        owner = original.session.owner
        size = original.content.size
        if original.description.keeps_state or not self.takes(owner.principal, size):
            end.close()
            return None
        try:
            self._descriptors.take(owner.principal, OF_A_PARKABLE)
        except Refusal:
            end.close()
            return None
        self._bytes[owner.principal] += size
        place = ParkableWorker(
            worker,
            end,
            partial(self._returning.bring_back, original),
            when_parked=partial(self._parked, owner, model_id),
            when_returned=partial(self._returned, owner, model_id),
            when_refused=partial(self._refused, owner, model_id),
        )
        self._places[place] = None
        place.when_ended(partial(self._forget, owner.principal, original.content))
        return place

    def look(self) -> None:
        """Park what was not called for long, and what was called longest ago if memory is short.

        One that is called just now goes on instead, and others have their turn before it is asked
        again.
        """
        now = monotonic()
        living = [place for place in self._places if place.pid]
        for place in living:
            place.look(now)
        if seconds := self._settings.keep_alive_seconds:
            for place in living:
                if now - place.idle_since >= seconds:
                    place.park()
        if self._settings.memory_pressure_bytes > self._memory_left():
            idle = [
                place for place in living if now - place.idle_since >= self._settings.ping_seconds
            ]
            if idle:
                min(idle, key=lambda place: (place.asked, place.idle_since)).park()

    def end_parked(self) -> None:
        """End the models that have no process: there will be none for them any more."""
        for place in list(self._places):
            if place.parked:
                place.kill(SERVICE_ENDED)

    def _forget(self, principal: int, content: ModelBytes, place: ParkableWorker) -> None:
        self._bytes[principal] -= content.size
        if not self._bytes[principal]:
            del self._bytes[principal]
        content.close()
        self._descriptors.give_back(principal, OF_A_PARKABLE)
        del self._places[place]

    def _parked(self, owner: Owner, model_id: str, place: ParkableWorker, pid: int) -> None:
        self._events.tell(
            ModelParked(owner=owner, model_id=model_id, worker_pid=pid, reported_calls=place.calls)
        )

    def _returned(self, owner: Owner, model_id: str, place: ParkableWorker, seconds: float) -> None:
        self._events.tell(
            ModelReturned(owner=owner, model_id=model_id, worker_pid=place.pid, seconds=seconds)
        )

    def _refused(self, owner: Owner, model_id: str, failure: Failure) -> None:
        if failure.cause is not Cause.CLOSED:
            self._events.tell(ReturnFailed(owner=owner, model_id=model_id, failure=failure))
