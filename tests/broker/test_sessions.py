"""Sessions: tokens, quotas, events, without a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from loader_service.broker.model import Model
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.sessions import LOST_MODELS_KEPT, Session, Sessions
from loader_service.broker.settings import Settings, complete
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import ModelDescription
from model_loader_wire.limits import DEFAULT_LIMITS, Limits

LIMITS = DEFAULT_LIMITS.lowered_by(Limits(models_per_origin=2, processes=3))
SETTINGS = Settings(directory="", limits=complete(LIMITS), allowed_uids=frozenset({1, 2, 3}))


def sessions_of(settings: Settings) -> Sessions:
    """Sessions of a service with these settings."""
    return Sessions(settings, Principals(settings))


class WorkerWithoutProcess:
    """What a session knows of a worker, without one."""

    parked = False
    pid = 7

    def __init__(self) -> None:
        self.lost: Failure | None = None
        self.suspect = True
        self._told: list[Callable[[Any], None]] = []

    def when_ended(self, call: Callable[[Any], None]) -> None:
        """Remember whom to call."""
        self._told.append(call)

    async def end(self, reason: Failure) -> Failure:
        """Die."""
        if self.lost is None:
            self.lost = reason
            for call in self._told:
                call(self)
        return self.lost


def model() -> Model:
    """A model as a session holds it."""
    return Model(
        worker=cast(Worker, WorkerWithoutProcess()),
        description=ModelDescription((), "", ""),
        limits=LIMITS,
        sha256=b"",
        label="",
        origin="",
    )


def loaded(sessions: Sessions, session: Session) -> Model:
    """Load a model into a session."""
    sessions.reserve(session)
    session.loading -= 1
    made = model()
    sessions.add(session, made)
    return made


def die(model: Model, cause: Cause = Cause.CRASHED) -> None:
    """Let a model's worker die."""
    asyncio.run(_end(model, cause))


async def _end(model: Model, cause: Cause) -> None:
    await model.worker.end(Failure(cause, "it ended"))


def refused(call: Callable[[], object]) -> Failure:
    """The failure of a call that must be refused."""
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.failure


def test_a_token_names_a_session_of_its_principal_only() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    assert sessions.find(1, session.token) is session
    for principal, token in ((2, session.token), (1, b"x" * 32), (1, b"")):
        assert refused(partial(sessions.find, principal, token)).cause is Cause.FORBIDDEN
    asyncio.run(sessions.close(session))
    assert refused(lambda: sessions.find(1, session.token)).cause is Cause.FORBIDDEN


def test_a_model_belongs_to_its_session() -> None:
    sessions = sessions_of(SETTINGS)
    one, other = sessions.open(1, "a"), sessions.open(1, "a")
    mine = loaded(sessions, one)
    assert one.model(mine.model_id) is mine
    assert refused(lambda: other.model(mine.model_id)).cause is Cause.FORBIDDEN
    assert refused(lambda: one.model("none")).cause is Cause.FORBIDDEN


def test_models_per_origin_counts_all_sessions_of_the_origin() -> None:
    sessions = sessions_of(SETTINGS)
    first, second = sessions.open(1, "a"), sessions.open(1, "a")
    lost = loaded(sessions, first)
    sessions.reserve(second)  # a load under way counts
    failure = refused(lambda: sessions.reserve(first))
    assert (failure.cause, failure.limit) == (Cause.LIMIT, "models_per_origin")
    assert (failure.value, failure.maximum) == (3, 2)
    sessions.reserve(sessions.open(1, "b"))
    sessions.reserve(sessions.open(2, "a"))
    second.loading -= 1
    sessions.reserve(second)
    second.loading -= 1
    die(lost)
    sessions.reserve(first)
    sessions.reserve(first)


def test_processes_counts_all_origins_of_the_principal() -> None:
    sessions = sessions_of(SETTINGS)
    for origin in "abc":
        sessions.reserve(sessions.open(1, origin))
    failure = refused(lambda: sessions.reserve(sessions.open(1, "d")))
    assert (failure.limit, failure.value, failure.maximum) == ("processes", 4, 3)
    sessions.reserve(sessions.open(2, "a"))


def test_parked_models_have_no_process_beside_shared_ones_either() -> None:
    limits = complete(LIMITS.lowered_by(Limits(processes=2)))
    sessions = sessions_of(replace(SETTINGS, isolation="origin", limits=limits))
    session = sessions.open(1, "a")
    made = [cast(Any, loaded(sessions, session).worker) for _ in range(2)]
    for worker in made:
        worker.pid, worker.parked = 0, True
    sessions.reserve(sessions.open(1, "b"))
    sessions.reserve(sessions.open(1, "c"))
    for number, worker in enumerate(made, 3):  # on its way back, and without a number yet
        worker.parked = False
        failure = refused(lambda: sessions.check_return(session, limits))
        assert (failure.limit, failure.value, failure.maximum) == ("processes", number, 2)


def test_a_session_that_is_over_begins_nothing() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    asyncio.run(sessions.close(session))
    # Nothing that it began would be counted.
    assert refused(lambda: sessions.reserve(session)).cause is Cause.CLOSED
    assert session.loading == 0


def test_the_empty_origin_is_the_principals_default_and_a_long_one_is_refused() -> None:
    sessions = sessions_of(SETTINGS)
    assert sessions.open(7, "").origin == "uid:7"
    assert sessions.open(7, "a\x1b[2Jb").origin == "a\\x1b[2Jb"
    assert refused(lambda: sessions.open(7, "x" * 1025)).cause is Cause.INVALID_INPUT


def test_lost_models_are_told_and_closed_ones_are_not() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    lost, closed = loaded(sessions, session), loaded(sessions, session)
    die(closed, Cause.CLOSED)
    die(lost)
    assert session.events.get_nowait() is lost
    assert session.events.empty()


def test_only_so_many_lost_models_are_remembered() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    lost = []
    for _ in range(LOST_MODELS_KEPT + 10):
        lost.append(loaded(sessions, session))
        die(lost[-1])
    living = loaded(sessions, session)
    assert list(session.models.values()) == [*lost[-LOST_MODELS_KEPT:], living]


def test_a_full_queue_still_tells_of_the_services_end() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    for _ in range(session.events.maxsize + 1):
        session.tell(model())
    assert session.events.full()
    sessions.service_ends()
    events = [session.events.get_nowait() for _ in range(session.events.maxsize)]
    assert events[-1] is None
    assert None not in events[:-1]


def test_closing_ends_models_and_loads() -> None:
    sessions = sessions_of(SETTINGS)
    session = sessions.open(1, "a")
    mine = loaded(sessions, session)
    loading = cast(Worker, WorkerWithoutProcess())
    session.unfinished.add(loading)
    asyncio.run(sessions.close(session))
    for worker in (mine.worker, loading):
        assert worker.lost is not None
        assert worker.lost.cause is Cause.CLOSED
    assert session.closed
    assert not sessions.of_principal(1)


def test_all_principals_together_have_a_number_of_processes() -> None:
    sessions = sessions_of(replace(SETTINGS, total_processes=3))
    mine, theirs = sessions.open(1, "a"), sessions.open(2, "a")
    for session in (mine, theirs, mine):
        sessions.reserve(session)
    with pytest.raises(Refusal) as caught:
        sessions.reserve(theirs)
    failure = caught.value.failure
    assert (failure.limit, failure.value, failure.maximum) == ("total_processes", 4, 3)
    mine.loading -= 1
    sessions.reserve(theirs)
