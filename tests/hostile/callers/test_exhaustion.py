"""Exhausting the broker from outside: a limit, an error, and others who notice nothing.

Where root runs the tests the abuser is another user than the one who works meanwhile; else it is
another program of the same user.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.hostile.callers.abuser import Abuser
from tests.hostile.callers.conftest import FLAGS, honest
from tests.support.daemon import Daemon

pytestmark = pytest.mark.isolation

Abused = Callable[[str], Abuser]
two_users = os.geteuid() == 0


def works_beside(daemon: Daemon) -> None:
    """Work, where the abuser's limits are not one's own."""
    if two_users:
        honest(daemon)


def test_silence_on_the_attach_socket(daemon: Daemon, abused: Abused) -> None:
    with abused("silence") as abuser:
        told = abuser.report()["told"]
        works_beside(daemon)
        assert told == {"attach_connections": 40}
        abuser.go_on()
        assert abuser.report() == {"ended": 60}
        honest(daemon)


def test_a_greeting_byte_by_byte(daemon: Daemon, abused: Abused) -> None:
    with abused("dribble") as abuser:
        honest(daemon)
        report = abuser.report()
        assert report["sent"] < report["of"]


def test_descriptors_and_garbage(daemon: Daemon, abused: Abused) -> None:
    before = daemon.descriptors()
    with abused("descriptors") as abuser:
        causes = abuser.report()["causes"]
        assert sum(causes.values()) == 100
        assert set(causes) <= {"invalid-input", "forbidden"}
        # One connection, and the zygote and gRPC socket of a user who comes for the first time.
        assert daemon.descriptors() <= before + 12
        honest(daemon)


def test_unread_replies_on_the_attach_socket(daemon: Daemon, abused: Abused) -> None:
    with abused("unread_replies") as abuser:
        honest(daemon)
        assert abuser.report()["sent"] < 10_000


def test_channels_that_nobody_receives(daemon: Daemon, abused: Abused) -> None:
    with abused("unreceived_channels") as abuser:
        told = abuser.report()["told"]
        works_beside(daemon)
        assert told == {"": 9, "processes": 3}
        # The sessions live on; their models do not.
        daemon.wait_for_workers([])
        honest(daemon)


def test_uploads_that_trickle_or_stop(daemon: Daemon, abused: Abused) -> None:
    with abused("slow_uploads") as abuser:
        assert abuser.report()["under way"]
        works_beside(daemon)
        abuser.go_on()
        told = abuser.report()["told"]
        assert set(told) <= {"load_seconds", "processes", "models_per_origin"}
        assert told["load_seconds"] >= 4
        daemon.wait_for_workers([])


def test_many_sessions_on_streams(daemon: Daemon, abused: Abused) -> None:
    with abused("sessions") as abuser:
        assert abuser.report() == {"told": {"": 40, "calls_at_a_time": 20}}
        works_beside(daemon)


def test_messages_that_are_too_long(daemon: Daemon, abused: Abused) -> None:
    with abused("messages") as abuser:
        report = abuser.report()
        honest(daemon)
        assert report == {
            "told": [
                # Fields that a method does not know, and what follows a load's end, are not read.
                *("invalid-input", "", "model_bytes", ""),
                *("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "model_bytes", ""),
            ],
            "still answers": 1,
        }


@pytest.mark.slow
def test_messages_that_never_end(daemon: Daemon, abused: Abused) -> None:
    with abused("half_messages") as abuser:
        abuser.report()
        works_beside(daemon)
        abuser.go_on()
        # Half of them are loads.
        assert abuser.report()["outcomes"] == {"message_seconds": 12, "load_seconds": 12}


@pytest.mark.slow
def test_messages_that_never_end_and_need_too_much_memory() -> None:
    patient = {"message_seconds": 60, "load_seconds": 60, "broker_memory_bytes": 96 << 20}
    with Daemon(**FLAGS | patient) as daemon, Abuser(daemon.directory, "half_messages") as abuser:
        abuser.report()
        abuser.go_on()
        for _ in range(5):
            works_beside(daemon)
        outcomes = abuser.report()["outcomes"]
        assert outcomes["broker_memory_bytes"] > 0
        assert daemon.memory() < 2 * patient["broker_memory_bytes"]
        honest(daemon)


def test_metadata_of_megabytes(daemon: Daemon, abused: Abused) -> None:
    with abused("metadata") as abuser:
        report = abuser.report()
        honest(daemon)
        assert report == {"told": ["RESOURCE_EXHAUSTED"] * 2, "models": 0}
        assert daemon.memory() < FLAGS["broker_memory_bytes"]


@pytest.mark.slow
def test_floods_of_frames(daemon: Daemon, abused: Abused) -> None:
    with abused("floods") as abuser:
        honest(daemon)
        report = abuser.report()
        sent, ended, said = report["pings"]
        assert ended
        # The reason is lost if it does not fit in behind the answers that were not read yet.
        assert "too_many_pings" in said or not said
        assert sent < 100_000
        honest(daemon)


@pytest.mark.slow
def test_idle_connections(daemon: Daemon, abused: Abused) -> None:
    with abused("idle_connections") as abuser:
        abuser.report()
        works_beside(daemon)
        abuser.go_on()
        assert abuser.report() == {"silent ended": 60}
        abuser.go_on()
        assert 0 < abuser.report()["held"] <= FLAGS["grpc_connections"]
        works_beside(daemon)


@pytest.mark.slow
def test_answers_that_nobody_takes(daemon: Daemon, abused: Abused) -> None:
    with abused("unread_answers") as abuser:
        abuser.report()
        works_beside(daemon)
        abuser.go_on()
        assert abuser.report() == {"outcomes": {"held": 8, "bytes_in_flight": 12}}
        works_beside(daemon)
