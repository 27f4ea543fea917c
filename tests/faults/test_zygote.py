"""A zygote that dies is replaced without a restart: while nothing happens, and while it forks."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from loader_service.writer import small
from tests.broker.conftest import ONE
from tests.faults.ground import Client, Ground
from tests.support.raw_client import RawSession
from tests.support.stopping import is_dead, wait_until_stopped
from tests.support.waiting import wait_until

pytestmark = pytest.mark.isolation


@pytest.fixture
def client(ground: Ground) -> Client:
    """A client without a connection."""
    return ground.client("blocking", "direct")


def test_one_that_died_while_nothing_happened(ground: Ground, client: Client) -> None:
    first = ground.zygote()
    os.kill(first, signal.SIGKILL)
    # The broker reaps it at once, and needs it only for the next load.
    wait_until(lambda: first not in ground.service.zygotes(), "the dead zygote being reaped")
    with RawSession(ground.service.directory, "again") as session:
        reply = session.load(small.add(), relayed=True)
        assert session.compute(reply.model_id, ONE).outputs
        assert ground.zygote() != first
    client.ask("connect")
    ground.check(client)


@pytest.mark.parametrize("stage", ["the zygote was asked", "the worker is forked"])
def test_one_that_dies_in_a_birth_leaves_no_half_born_worker(
    ground: Ground, client: Client, stage: str
) -> None:
    client.ask("connect")
    ground.arm(stage)
    first = ground.zygote()
    with RawSession(ground.service.directory, "birth") as session:
        loading = session.begin_load(small.add())
        wait_until_stopped(first)
        half_born = set(ground.service.workers()) - {ground.bystander.pid}
        assert len(half_born) == (stage == "the worker is forked")
        os.kill(first, signal.SIGKILL)
        reply = loading.result()
        # What the dead zygote had forked is nobody's model, and ends.
        for pid in half_born:
            assert reply.isolation.worker_pid != pid
            wait_until(partial(is_dead, pid), "the end of the half-born worker")
    ground.check(client)


def test_two_in_a_row_are_an_error_and_the_third_load_is_well(
    ground: Ground, client: Client
) -> None:
    client.ask("connect")
    with RawSession(ground.service.directory, "birth") as session:
        ground.arm("the zygote was asked")
        loading = session.begin_load(small.add())
        first = ground.zygote()
        wait_until_stopped(first)
        ground.arm("the zygote was asked")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: ground.service.zygotes() not in ([], [first]), "another zygote")
        second = ground.zygote()
        wait_until_stopped(second)
        os.kill(second, signal.SIGKILL)
        assert "ended twice" in str(loading.exception())
    ground.check(client)
