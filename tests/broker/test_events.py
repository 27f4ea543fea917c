"""The broker's events: what they may tell, and how their readers get them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import fields

import pytest

from loader_service.broker import event_log, events
from loader_service.broker.event_stream import AHEAD, KEPT, KEPT_OF_STRANGERS, EventStream, Told
from loader_service.broker.events import (
    CallRefused,
    ConnectionRefused,
    Event,
    Failed,
    LoadFailed,
    ModelLost,
    SessionOpened,
    ZygoteRenewed,
    limit_hit,
)
from loader_service.broker.groups import Owner
from loader_service.broker.known_limits import KNOWN_LIMITS
from loader_service.broker.log import BoundedHandler, JsonFormatter
from loader_service.broker.request_id import new_request_id, request_id
from model_loader_wire.causes import Cause, Failure

OWNER = Owner(1000, "an origin")


def kinds(parent: type[Event] = Event) -> list[type[Event]]:
    """Return every class of events."""
    found = []
    for child in parent.__subclasses__():
        found += [child, *kinds(child)]
    # A class with slots is made twice.
    return [kind for kind in found if kind is getattr(events, kind.__name__)]


def failed(failure: Failure) -> LoadFailed:
    """A load that failed so."""
    return LoadFailed(failure=failure, owner=OWNER, task="load", seconds=1.5)


def renewed(number: int) -> ZygoteRenewed:
    """An event with a number in it."""
    return ZygoteRenewed(user=number, forks=200, reason="used-up")


def test_each_kind_has_a_name_of_its_own() -> None:
    told = [kind for kind in kinds() if kind is not Failed]
    assert set(told) == set(events.KINDS)
    names = [kind.kind for kind in told]
    assert len(set(names)) == len(names) > 15
    assert all(kind.__doc__ for kind in told)


def test_no_event_can_carry_bytes_or_a_label() -> None:
    for kind in kinds():
        for field in fields(kind):
            assert field.name not in ("label", "last_words", "data"), kind
            assert "bytes" not in str(field.type), (kind, field.type)


def test_what_a_worker_can_have_said_is_not_told() -> None:
    said = Failure(Cause.FAILED, "the secret weights", "made up", last_words="stderr of it")
    event = failed(said)
    assert "secret" not in repr(event)
    assert "made up" not in repr(event)
    assert event.failure.last_words == ""
    assert event.facts() == {
        "cause": "failed",
        "user": 1000,
        "origin": "an origin",
        "task": "load",
        "seconds": 1.5,
    }


def test_what_the_service_knows_is_told() -> None:
    event = failed(Failure(Cause.TIMEOUT, "it took too long", "load_seconds", 31, 30))
    facts = event.facts()
    assert (facts["limit"], facts["value"], facts["maximum"]) == ("load_seconds", 31, 30)
    assert facts["message"] == "it took too long"
    assert limit_hit(event) == "load_seconds" in KNOWN_LIMITS


def test_a_limit_is_counted_once_when_a_call_loses_its_model() -> None:
    late = Failure(Cause.TIMEOUT, "late", "compute_seconds", 2, 1, model_lost=True)
    lost = ModelLost(
        failure=late,
        owner=OWNER,
        model_id="m",
        sha256="",
        worker_pid=1,
        reported_calls=0,
        lived_seconds=1,
    )
    refused = CallRefused(failure=late, user=1000, method="Compute")
    assert [limit_hit(lost), limit_hit(refused)] == ["compute_seconds", ""]
    assert limit_hit(SessionOpened(owner=OWNER)) == ""


def test_a_reader_gets_every_event_in_order_with_its_request() -> None:
    stream = EventStream(clock=lambda: 7.0)
    told: list[Told] = []
    stream.add_reader(told.append)
    token = request_id.set(new_request_id())
    stream.tell(SessionOpened(owner=OWNER))
    request = request_id.get()
    request_id.reset(token)
    stream.tell(renewed(1))
    assert [(item.number, item.unix_seconds) for item in told] == [(1, 7.0), (2, 7.0)]
    assert [item.request for item in told] == [request, ""]
    # What matters little is not kept for those who come later.
    assert [item.event.kind for item in stream.kept()] == ["zygote-renewed"]


def test_a_reader_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    stream = EventStream()
    told: list[Told] = []

    def fail(_: Told) -> None:
        raise ZeroDivisionError

    stream.add_reader(fail)
    stream.add_reader(told.append)
    stream.tell(renewed(1))
    assert len(told) == 1
    assert "a reader of events failed" in caplog.text


def test_what_is_kept_is_bounded() -> None:
    stream = EventStream()
    for number in range(KEPT + 5):
        stream.tell(renewed(number))
    assert len(stream.kept()) == KEPT
    assert stream.kept()[0].number == 6


def test_strangers_push_out_nothing_that_is_kept_but_their_own() -> None:
    stream = EventStream()
    refusal = ConnectionRefused(failure=Failure(Cause.FORBIDDEN, "no"), user=1, peer="192.0.2.1")
    stream.tell(renewed(1))
    for _ in range(KEPT + 5):
        stream.tell(refusal)
    stream.tell(renewed(2))
    kept = stream.kept()
    assert [kept[0].event, kept[-1].event] == [renewed(1), renewed(2)]
    assert len(kept) == KEPT_OF_STRANGERS + 2
    numbers = [item.number for item in kept]
    assert numbers == sorted(numbers)
    assert numbers[-2] == KEPT + 6


def test_a_follower_that_does_not_read_loses_the_oldest_and_is_told_how_many() -> None:
    async def follow() -> None:
        stream = EventStream()
        with stream.followed() as follower:
            stream.tell(SessionOpened(owner=OWNER))  # below its level
            for number in range(AHEAD + 3):
                stream.tell(renewed(number))
            assert follower.left_out == 3
            assert (await follower.next()).event == renewed(3)
        with stream.followed(logging.DEBUG) as other:
            waiting = asyncio.create_task(other.next())
            await asyncio.sleep(0)
            stream.tell(SessionOpened(owner=OWNER))
            assert (await waiting).event.kind == "session-opened"
        stream.tell(renewed(0))
        assert follower.left_out == 3  # nobody tells it any more

    asyncio.run(follow())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged of events."""
    text = io.StringIO()
    logger = logging.Logger("model_loader.events", logging.INFO)
    logger.addHandler(BoundedHandler(text, 10**6))
    monkeypatch.setattr(event_log, "log", logger)
    yield text
    logger.handlers[0].close()


def test_the_log_has_a_line_for_each_event_of_its_level(written: io.StringIO) -> None:
    stream = EventStream()
    stream.add_reader(event_log.write)
    stream.tell(SessionOpened(owner=OWNER))
    stream.tell(failed(Failure(Cause.TIMEOUT, "it took too long", "load_seconds", 31, 30)))
    assert written.getvalue() == (
        "load-failed: cause=timeout limit=load_seconds value=31 maximum=30 user=1000 "
        "origin='an origin' task=load seconds=1.5 (it took too long)\n"
    )


def test_the_log_in_json_has_the_facts(written: io.StringIO) -> None:
    event_log.log.handlers[0].setFormatter(JsonFormatter())
    event_log.write(Told(1, 0.0, "", renewed(4)))
    value = json.loads(written.getvalue())
    assert {name: value[name] for name in ("event", "user", "forks", "reason", "level")} == {
        "event": "zygote-renewed",
        "user": 4,
        "forks": 200,
        "reason": "used-up",
        "level": "info",
    }
