"""Sessions: what one connection of one principal may name, and what ends with it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from loader_service.broker.groups import Owner
from loader_service.broker.model import Model
from loader_service.broker.network_client import own_origin
from loader_service.broker.parkable import Home
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.seat import Place
from loader_service.broker.settings import Settings
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.limits import Limits

ORIGIN_LENGTH = 1024
LOOK_SECONDS = 0.005
"""Between two looks whether a model that was let go of is gone."""
LOST_MODELS_KEPT = 64
"""Lost and closed models of which a session can still be told what became of them."""
EVENTS_KEPT = 1024
"""Lost models that a listening session has not been told of yet; later ones it must ask for."""


@dataclass(slots=True, eq=False)
class Session:
    """A session of a principal; its token dies with it."""

    principal: int
    origin: str
    token: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    models: dict[str, Model] = field(default_factory=dict)
    loading: int = 0
    """Loads that are counted but are no models yet."""
    inspecting: int = 0
    """Of those, inspections that have a process."""
    unfinished: set[Place] = field(default_factory=set)
    """Workers of those loads."""
    closed: bool = False
    events: asyncio.Queue[Model | None] = field(default_factory=lambda: asyncio.Queue(EVENTS_KEPT))
    """Models to tell of, for a session that listens; None when the service ends."""

    @property
    def owner(self) -> Owner:
        """Whose the session is: its origin among those of all principals."""
        return Owner(self.principal, self.origin)

    def model(self, model_id: str) -> Model:
        """Return the session's model of that name; raises Refusal for any other name."""
        model = self.models.get(model_id)
        if model is None:
            raise refuse(Cause.FORBIDDEN, "this session has no model of that name")
        return model

    def tell(self, model: Model | None) -> None:
        """Put an event into the queue; where that is full the end of the service has room made."""
        if self.events.full():
            if model is not None:
                return
            self.events.get_nowait()
        self.events.put_nowait(model)


class Sessions:
    """All sessions of a broker, and what they hold together."""

    def __init__(self, settings: Settings, principals: Principals) -> None:
        self._settings = settings
        self._principals = principals
        self._by_token: dict[bytes, Session] = {}
        self.when_closed: list[Callable[[Session], None]] = []
        """Called with each session that is over, and is not among its principal's any more."""
        self.when_opened: list[Callable[[Session], None]] = []
        """Called with each new session."""
        self.when_model_ended: list[Callable[[Session, Model], None]] = []
        """Called with each model of a session that was closed or lost."""

    def open(self, principal: int, origin: str) -> Session:
        """Begin a session; an origin is a name within its principal. Raises Refusal.

        The empty origin is the principal's default.
        """
        if len(origin) > ORIGIN_LENGTH:
            raise refuse(Cause.INVALID_INPUT, f"an origin has at most {ORIGIN_LENGTH} characters")
        session = Session(principal, printable(origin or own_origin(principal), ORIGIN_LENGTH))
        self._by_token[session.token] = session
        for call in self.when_opened:
            call(session)
        return session

    def all(self) -> list[Session]:
        """Return every session."""
        return list(self._by_token.values())

    def find(self, principal: int, token: bytes) -> Session:
        """Return the principal's session; raises Refusal for a token that is not its own."""
        session = self._by_token.get(token)
        if session is None or session.principal != principal:
            raise refuse(Cause.FORBIDDEN, "the session's token is not valid: open a session first")
        return session

    def of_principal(self, principal: int) -> list[Session]:
        """Return the principal's sessions."""
        return [item for item in self._by_token.values() if item.principal == principal]

    def reserve(self, session: Session, lowered: Limits | None = None) -> None:
        """Count a model that is about to be loaded; raises Refusal if there are too many.

        `lowered` holds the limits of this load, if they are not the service's own.
        """
        if session.closed:
            # It is not among those that are counted any more.
            raise refuse(Cause.CLOSED, "the session was closed")
        limits = lowered or self._principals.policy_for(session.owner).limits
        mine = self.of_principal(session.principal)
        own = [item for item in mine if item.origin == session.origin]
        count = 1 + sum(item.loading + _living(item) for item in own)
        if count > (most := limits.models_per_origin or 0):
            raise over_limit("models_per_origin", count, most, "too many models at a time")
        self._check_processes(limits, session.principal, session)
        session.loading += 1

    @contextmanager
    def inspecting(self, session: Session, limits: Limits) -> Iterator[None]:
        """Count the process of an inspection, which no origin shares; raises Refusal."""
        session.inspecting += 1
        try:
            self._check_processes(limits, session.principal)
            yield
        finally:
            session.inspecting -= 1

    def check_return(self, session: Session, limits: Limits) -> None:
        """Raise Refusal if there are too many processes, with the one of a model that comes back.

        That one counts already.
        """
        if session.closed:
            raise refuse(Cause.CLOSED, "the session was closed")
        self._check_processes(limits, session.principal)

    def _check_processes(
        self, limits: Limits, principal: int, beginning: Session | None = None
    ) -> None:
        """Raise Refusal if there are too many, one for what a session begins included."""
        for limit, most, principals in (
            ("processes", limits.processes or 0, {principal}),
            (
                "total_processes",
                self._principals.settings.total_processes,
                self._active() | {principal},
            ),
        ):
            count = sum(self._processes(each, beginning) for each in principals)
            if count > most:
                raise over_limit(limit, count, most, "too many models at a time")

    def _active(self) -> set[int]:
        """Return the principals that have sessions."""
        return {session.principal for session in self._by_token.values()}

    def _processes(self, principal: int, beginning: Session | None) -> int:
        """Count a principal's processes, one for what a session of its begins included."""
        sessions = self.of_principal(principal)
        if beginning is not None and beginning.principal != principal:
            beginning = None
        owner = Owner(principal, "")
        if self._principals.policy_for(owner).isolation == "origin":
            return _shared_processes(sessions, beginning)
        return _processes(sessions, beginning)

    def has_room_to_spare(self, principal: int) -> bool:
        """Whether not even half of the processes that may be are there."""
        most = self._principals.policy_for(Owner(principal, "")).limits.processes or 0
        everybody = sum(self._processes(each, None) for each in self._active())
        if 2 * everybody >= self._principals.settings.total_processes:
            return False
        return 2 * self._processes(principal, None) < most

    async def admit(self, session: Session, limits: Limits, seconds: float) -> None:
        """Reserve, and wait for so long for a model that its owner has just dropped to be gone.

        Nobody waits for the end of a model that is only let go of, as a variable's old value is.
        """
        ends = monotonic() + seconds
        while True:
            try:
                self.reserve(session, limits)
            except Refusal:
                if session.closed or monotonic() >= ends:
                    raise
            else:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def add(self, session: Session, model: Model) -> None:
        """Enter a loaded model, and forget the oldest lost ones."""
        lost = [item.model_id for item in session.models.values() if item.lost]
        for model_id in lost[:-LOST_MODELS_KEPT]:
            del session.models[model_id]
        session.models[model.model_id] = model
        model.worker.when_ended(lambda _: self._model_ended(session, model))

    async def close(self, session: Session) -> None:
        """End a session and all its workers."""
        session.closed = True
        self._by_token.pop(session.token, None)
        for call in self.when_closed:
            call(session)
        reason = Failure(Cause.CLOSED, "the session was closed")
        workers: list[Home] = [model.worker for model in session.models.values()]
        workers += session.unfinished
        await asyncio.gather(*(worker.end(reason) for worker in workers))
        session.models.clear()

    def _model_ended(self, session: Session, model: Model) -> None:
        _tell(session, model)
        for call in self.when_model_ended:
            call(session, model)

    def service_ends(self) -> None:
        """Tell the sessions that listen."""
        for session in self._by_token.values():
            session.tell(None)


def _living(session: Session) -> int:
    return sum(model.lost is None for model in session.models.values())


def _processes(sessions: Sequence[Session], beginning: Session | None) -> int:
    """Count processes where each model, and each inspection, has its own."""
    living = sum(
        model.lost is None and not model.worker.parked
        for item in sessions
        for model in item.models.values()
    )
    return sum(item.loading for item in sessions) + living + (beginning is not None)


def _shared_processes(sessions: Sequence[Session], beginning: Session | None) -> int:
    """Count processes where the models of an origin share one, and each inspection has its own.

    An origin whose models are all loading has none yet, and will have one. A model on a device has
    its own: none while it is parked, and one as soon as it is on its way back.
    """
    living = [
        (item.owner, model.worker.pid or model.model_id)
        for item in sessions
        for model in item.models.values()
        if model.lost is None and not model.worker.parked
    ]
    loading = {item.owner for item in sessions if item.loading > item.inspecting}
    if beginning is not None:
        loading.add(beginning.owner)
    coming = loading - {owner for owner, _ in living}
    return (
        len({process for _, process in living})
        + len(coming)
        + sum(item.inspecting for item in sessions)
    )


def _tell(session: Session, model: Model) -> None:
    # A model that its owner closed is no news.
    if model.lost is not None and model.lost.cause is not Cause.CLOSED:
        session.tell(model)
