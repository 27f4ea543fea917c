"""What becomes of a model without a worker, whatever comes: no process is needed for that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from loader_service.broker.channels import KeptChannel
from loader_service.broker.meter import Usage
from loader_service.broker.model import Model
from loader_service.broker.mortal import Mortal
from loader_service.broker.parkable import ParkableWorker
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, over_limit, refuse
from loader_service.broker.sessions import Sessions
from loader_service.broker.settings import Settings, complete
from loader_service.broker.worker import PARKED, Worker
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import ModelDescription
from model_loader_wire.frames import (
    HEADER,
    Kind,
    pack_header,
    unpack_failure,
    unpack_header,
)
from model_loader_wire.limits import Limits
from tests.support.raw_client import HANG_SECONDS

CLOSED = Failure(Cause.CLOSED, "the model was closed")
REQUEST = pack_header(Kind.COMPUTE, 7, payload_length=100_000) + bytes(100_000)


class WorkerWithoutProcess(Mortal):
    """What a parkable worker knows of a worker."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.calls = 3
        self.channel: socket.socket | None = None
        self.channel_inode = 5
        self.has_parked = False
        self.asked = 0

    def park(self) -> None:
        """Be asked."""
        self.asked += 1

    def parks(self) -> None:
        """End because it was asked to."""
        self.has_parked = True
        self.over(PARKED)

    def kill(self, reason: Failure) -> None:
        """Die."""
        self.over(reason)

    async def verdict(self) -> Failure:
        """Return why it died."""
        assert self.lost is not None
        return self.lost

    def usage(self) -> Usage:
        """Say something."""
        return Usage(1, 1.0)


@dataclass
class Scene:
    """A model with its client's end of the channel, and what is told."""

    client: socket.socket
    first: WorkerWithoutProcess
    place: ParkableWorker
    told: list[object] = field(default_factory=list)
    answers: list[Callable[[], Coroutine[Any, Any, Worker]]] = field(default_factory=list)
    """How each return goes."""

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what must come."""
        async with asyncio.timeout(HANG_SECONDS):
            while not condition():
                await asyncio.sleep(0.001)

    async def received(self, count: int) -> bytes:
        """Receive so many bytes as the client; fewer if the channel ends."""
        loop, data = asyncio.get_running_loop(), b""
        while len(data) < count:
            piece = await asyncio.wait_for(
                loop.sock_recv(self.client, count - len(data)), HANG_SECONDS
            )
            if not piece:
                break
            data += piece
        return data

    async def refusal(self) -> Failure:
        """Read the failure with which a call is answered."""
        header = unpack_header(await self.received(HEADER.size))
        assert (header.kind, header.sequence) == (Kind.FAILURE, 7)
        return unpack_failure(await self.received(header.payload_length))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """A model that was just parked."""
    client, end = socket.socketpair()
    client.setblocking(False)
    first = WorkerWithoutProcess(11)

    async def bring_back(kept: KeptChannel) -> Worker:
        assert (kept.end, kept.client_inode) == (end, 5)
        return await made.answers.pop(0)()

    place = ParkableWorker(
        cast(Worker, first),
        end,
        bring_back,
        when_parked=lambda _, pid: made.told.append(pid),
        when_returned=lambda place, _: made.told.append(("returned", place.pid)),
        when_refused=lambda failure: made.told.append(failure.cause),
    )
    made = Scene(client, first, place)
    first.parks()
    try:
        yield made
        place.kill(CLOSED)
        assert (await place.verdict()).model_lost
        assert end.fileno() == -1
    finally:
        client.close()


async def second(pid: int = 12) -> Worker:
    """Come back."""
    return cast(Worker, WorkerWithoutProcess(pid))


async def no_room() -> Worker:
    """Find no room."""
    raise over_limit("processes", 2, 1, "too many")


async def broken() -> Worker:
    """Die on the way."""
    raise Refusal(Failure(Cause.CRASHED, "it crashed", model_lost=True))


async def forbidden() -> Worker:
    """Be refused for another reason than a limit."""
    raise refuse(Cause.FORBIDDEN, "not any more")


async def never() -> Worker:
    """Take longer than anybody waits."""
    await asyncio.sleep(600)
    return await second()


def play(act: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    """Do something with a parked model."""

    async def run() -> None:
        async with scene() as made:
            await act(made)

    asyncio.run(run())


def test_a_call_brings_it_back_and_is_left_for_its_worker() -> None:
    async def act(made: Scene) -> None:
        assert (made.place.parked, made.place.pid, made.place.calls) == (True, 0, 3)
        assert made.place.usage() == Usage(0, 0)
        made.answers.append(second)
        made.client.send(b"call")
        await made.until(lambda: made.place.pid)
        assert (made.place.parked, made.place.pid, made.place.calls) == (False, 12, 6)
        assert made.told == [11, ("returned", 12)]
        assert made.place._kept.end.recv(100) == b"call"

    play(act)


def test_a_call_for_which_there_is_no_room_is_refused_and_the_next_one_tries_again() -> None:
    async def act(made: Scene) -> None:
        made.answers += [no_room, second]
        await asyncio.get_running_loop().sock_sendall(made.client, REQUEST)
        failure = await made.refusal()
        assert (failure.cause, failure.limit, failure.maximum) == (Cause.LIMIT, "processes", 1)
        await made.until(lambda: made.place.parked)
        made.client.send(b"call")
        await made.until(lambda: made.place.pid)
        assert made.told == [11, Cause.LIMIT, ("returned", 12)]

    play(act)


def test_each_of_several_calls_is_refused_by_itself() -> None:
    async def act(made: Scene) -> None:
        made.answers += [no_room, no_room]
        await asyncio.get_running_loop().sock_sendall(made.client, 2 * REQUEST)
        for _ in range(2):
            assert (await made.refusal()).cause is Cause.LIMIT

    play(act)


def test_of_two_that_are_called_at_a_time_one_comes_back_where_there_is_room_for_one() -> None:
    limits = complete(Limits(processes=1))
    settings = Settings(directory="", limits=limits, allowed_uids=frozenset({1}))
    sessions = Sessions(settings, Principals(settings))
    session = sessions.open(1, "a")

    async def if_there_is_room() -> Worker:
        sessions.check_return(session, limits)
        await asyncio.sleep(0)
        return await second()

    async def run() -> None:
        async with scene() as one, scene() as other:
            for made in (one, other):
                made.answers.append(if_there_is_room)
                description = ModelDescription((), "", "")
                model = Model(
                    worker=made.place,
                    description=description,
                    limits=limits,
                    sha256=b"",
                    label="",
                    origin="a",
                )
                sessions.add(session, model)
                made.client.send(REQUEST[:60])
            for made in (one, other):  # in one turn of the loop
                made.place._stirred()
            await one.until(lambda: one.place.pid)
            await other.until(lambda: len(other.told) == 2)
            assert (one.told, other.told) == ([11, ("returned", 12)], [11, Cause.LIMIT])
            # It still takes in the call that it refuses, and is in nobody's way.
            await one.until(lambda: other.place.parked)
            assert isinstance(one.place._worker, WorkerWithoutProcess)
            one.place._worker.parks()
            one.answers.append(if_there_is_room)
            one.place._stirred()
            await one.until(lambda: one.place.pid)

    asyncio.run(run())


@pytest.mark.parametrize(("way", "cause"), [(broken, Cause.CRASHED), (forbidden, Cause.FORBIDDEN)])
def test_one_that_cannot_come_back_is_lost(way: Any, cause: Cause) -> None:
    async def act(made: Scene) -> None:
        made.answers.append(way)
        made.client.send(b"call")
        # What it had sent is lost with the model: the kernel says so.
        with pytest.raises(ConnectionResetError):
            await made.received(1)
        assert made.place.lost is not None
        assert (made.place.lost.cause, made.place.lost.model_lost) == (cause, True)
        assert made.told == [11, cause]

    play(act)


def test_a_fault_of_the_service_is_told_as_one() -> None:
    async def fault() -> Worker:
        raise ZeroDivisionError

    async def act(made: Scene) -> None:
        made.answers.append(fault)
        made.client.send(b"call")
        await made.until(lambda: made.place.lost)
        assert made.place.lost is not None
        assert made.place.lost.cause is Cause.INTERNAL

    play(act)


@pytest.mark.parametrize("state", ["parked", "about to return", "returning", "being refused"])
def test_it_can_be_closed_at_any_time(state: str) -> None:
    async def act(made: Scene) -> None:
        if state == "about to return":
            made.client.send(b"call")
            made.place._stirred()  # in one turn of the loop with what follows
        elif state == "returning":
            made.answers.append(never)
            made.client.send(b"call")
            await made.until(lambda: made.place._returning)
        elif state == "being refused":
            made.answers.append(no_room)
            made.client.send(REQUEST[:60])
            await made.until(lambda: len(made.told) == 2)
            await asyncio.sleep(0)
        reason = Failure(Cause.TIMEOUT, "the caller's deadline passed")
        made.place.kill(reason)
        assert (await made.place.verdict()).cause is Cause.TIMEOUT
        assert made.place.pid == 0

    play(act)


def test_a_reason_that_was_given_while_its_worker_ended_counts() -> None:
    async def run() -> None:
        client, end = socket.socketpair()
        worker = WorkerWithoutProcess(11)

        async def bring_back(_: KeptChannel) -> Worker:
            raise AssertionError

        place = ParkableWorker(
            cast(Worker, worker),
            end,
            bring_back,
            when_parked=lambda *_: None,
            when_returned=lambda *_: None,
            when_refused=lambda *_: None,
        )
        worker.kill = lambda reason: None  # type: ignore[method-assign]  # it is dying already
        place.kill(CLOSED)
        worker.parks()
        assert place.lost is not None
        assert place.lost.message == CLOSED.message
        client.close()

    asyncio.run(run())


def test_a_client_that_leaves_closes_it() -> None:
    async def act(made: Scene) -> None:
        made.client.close()
        await made.until(lambda: made.place.lost)
        assert made.place.lost is not None
        assert made.place.lost.cause is Cause.CLOSED
        assert made.told == [11]

    play(act)


@pytest.mark.parametrize("data", [b"x" * 100, pack_header(Kind.ANSWER, 1)])
def test_what_is_no_request_ends_it_if_it_must_be_refused(data: bytes) -> None:
    async def act(made: Scene) -> None:
        made.answers.append(no_room)
        made.client.send(data)
        await made.until(lambda: made.place.lost)
        assert made.place.lost is not None
        assert made.place.lost.message.startswith("the client sent what is no request: ")

    play(act)


def test_only_one_that_serves_is_asked_to_make_room() -> None:
    async def act(made: Scene) -> None:
        made.place.park()
        assert made.first.asked == 0
        made.answers.append(second)
        made.client.send(b"call")
        await made.until(lambda: made.place.pid)
        assert made.place.asked == 0
        made.place.park()
        worker = cast(WorkerWithoutProcess, made.place._worker)
        assert (worker.asked, made.place.asked) == (1, 1)
        made.place.look(100.0)
        worker.calls += 1
        made.place.look(101.0)
        assert (made.place.asked, made.place.idle_since) == (0, 101.0)

    play(act)
