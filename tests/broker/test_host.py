"""The broker's handle of a host, whatever that host says and does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from loader_service.broker.groups import Owner
from loader_service.broker.host import Host
from loader_service.broker.hosts import Hosts
from loader_service.broker.refusal import Refusal
from loader_service.broker.reports import read_description
from loader_service.broker.seat import Seat
from loader_service.worker.control import MODEL_PIECE
from loader_service.worker.orders import Go, Task
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from tests.support.fake_worker import GO, HANG_SECONDS, READY, fake_host, run
from tests.support.stopping import stopped

HOST = replace(GO, task=Task.HOST, models=3)
COUNT = 3
CLOSED = Failure(Cause.CLOSED, "the model was closed")
LATE = Failure(Cause.TIMEOUT, "too late")

# A host that obeys: it loads what comes, and forgets what is closed.
OBEY = """
import json
said = lambda kind, number, **more: say(
    kind, struct.pack("<I", number) + (json.dumps(more).encode() if more else b""))
def obey(refuse=()):
    kind, payload = take()
    if kind in (MODEL_END, CLOSE):
        number = struct.unpack_from("<I", payload)[0]
        if kind == CLOSE:
            said(CLOSED, number)
        elif number in refuse:
            said(FAILED, number, cause="failed", message="no", limit="", value=0, maximum=0)
        else:
            said(LOADED, number, signatures=[{"name": "", "inputs": [], "outputs": []}],
                 runtime="", kernels="", note="", threads=1, keeps_state=False)
    elif kind == PING:
        say(PONG, payload + bytes(8 * 3))
    return kind
"""
OBEDIENT = READY + OBEY + "\nwhile True: obey()"
REFUSES_THE_SECOND = READY + OBEY + "\nwhile True: obey(refuse=(1,))"


async def seated(host: Host, limits: Limits = DEFAULT_LIMITS) -> Seat:
    """Take a seat, with orders and bytes."""
    seat = host.take_seat(limits, 1)
    await seat.open(GO)
    await seat.send_model(memoryview(b"model"))
    return seat


async def loaded(host: Host, limits: Limits = DEFAULT_LIMITS) -> Seat:
    """Load a model."""
    seat = await seated(host, limits)
    await seat.end_model()
    assert (await read_description(seat)).threads == 1
    return seat


async def say_all(seat: Seat) -> None:
    """Say all that there is to say, and hear more than there is to hear."""
    await seat.open(GO)
    await seat.open(GO)
    await seat.send_model(memoryview(b"model"))
    await seat.end_model()
    await read_description(seat)
    await seat.expect()


async def lost(seat: Seat) -> Failure:
    """Wait for a model's end."""
    failure = await seat.wait(HANG_SECONDS)
    assert failure is not None
    return failure


def test_models_are_closed_one_by_one_and_the_last_one_ends_the_process() -> None:
    async def test() -> None:
        async with fake_host(OBEDIENT, COUNT) as host:
            await host.begin(HOST)
            seats = [await loaded(host) for _ in range(COUNT)]
            assert not host.has_room
            assert (await seats[1].end(CLOSED)).cause is Cause.CLOSED
            assert seats[1].channel is None
            assert (await seats[0].end(CLOSED)).cause is Cause.CLOSED
            assert host.lost is None
            assert seats[2].lost is None
            await seats[2].end(CLOSED)
            assert host.lost is not None
            assert host.lost.cause is Cause.CLOSED

    run(test)


def test_a_load_that_fails_gives_its_channel_back() -> None:
    async def test() -> None:
        async with fake_host(REFUSES_THE_SECOND, COUNT) as host:
            await host.begin(HOST)
            first = await loaded(host)
            for _ in range(2 * COUNT):
                seat = await seated(host)
                assert seat.number == 1
                await seat.end_model()
                with pytest.raises(Refusal) as caught:
                    await read_description(seat)
                assert caught.value.failure.cause is Cause.FAILED
                seat.kill(CLOSED)
                while 1 not in host._free:
                    await asyncio.sleep(0.001)
            assert first.lost is None

    run(test)


@pytest.mark.parametrize("begun", [False, True])
def test_a_deadline_ends_all_only_if_the_work_has_begun(begun: bool) -> None:
    async def test() -> None:
        async with fake_host(OBEDIENT, COUNT) as host:
            await host.begin(HOST)
            neighbour = await loaded(host)
            seat = await (loaded(host) if begun else seated(host))
            assert (await seat.end(LATE)).cause is Cause.TIMEOUT
            if begun:
                failure = await lost(neighbour)
                assert failure.cause is Cause.TIMEOUT
                assert "held 2 models" in failure.message
                assert neighbour.suspect
            else:
                assert neighbour.lost is None
                assert host.lost is None

    run(test)


def test_one_model_is_loaded_at_a_time() -> None:
    async def test() -> None:
        async with fake_host(OBEDIENT, COUNT) as host:
            await host.begin(HOST)
            first, second = await seated(host), await seated(host)
            with stopped(host.pid):
                await first.end_model()
                waiting = asyncio.create_task(second.end_model())
                await asyncio.sleep(0.01)
                assert not waiting.done()
                # A load that is given up while it waits costs nobody anything.
                third = await seated(host)
                giving_up = asyncio.create_task(third.end_model())
                await asyncio.sleep(0.01)
                third.kill(LATE)
            await read_description(first)
            await waiting
            await read_description(second)
            with pytest.raises(Refusal) as caught:
                await giving_up
            assert caught.value.failure.cause is Cause.TIMEOUT
            assert host.lost is None

    run(test)


def test_a_message_is_sent_whole_even_if_its_sender_leaves() -> None:
    async def test() -> None:
        script = f"""{READY}{OBEY}
obey(); obey()                          # OPEN of both
read(channel, 1)                        # the broker waits meanwhile, in the middle of a message
while True: obey()
"""
        async with fake_host(script, COUNT) as host:
            await host.begin(HOST)
            seats = [host.take_seat(DEFAULT_LIMITS, 1) for _ in range(2)]
            for seat in seats:
                await seat.open(GO)
            sending = asyncio.create_task(seats[0].send_model(memoryview(bytes(MODEL_PIECE))))
            await asyncio.sleep(0.05)
            assert not sending.done()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            seats[0].kill(CLOSED)
            assert seats[0].channel is not None
            seats[0].channel.send(b"x")
            await seats[1].send_model(memoryview(b"model"))
            await seats[1].end_model()
            await read_description(seats[1])

    run(test)


HOSTILE = {
    "loaded before its end": "said(LOADED, 0)",
    "loaded twice": "obey(); obey(); obey(); said(LOADED, 0)",
    "failed after loaded": "obey(); obey(); obey(); said(FAILED, 0)",
    "loaded without fields": "obey(); obey(); take(); said(LOADED, 0)",
    "failed with no object": "say(FAILED, bytes(4) + b'[]')",
    "closed unasked": "said(CLOSED, 0)",
    "gone before it was there": "said(GONE, 0)",
    "no number": "say(LOADED)",
    "half a number": "say(FAILED, bytes(3))",
    "nobody's number": "said(LOADED, 2)",
    "the largest number": "said(LOADED, 0xffffffff)",
    "an inspection": "say(INSPECTED, b'{}')",
    "ready again": "say(READY, b'{}')",
    "a short pong": "say(PONG, b'1234')",
    "a pong unasked": "say(PONG, bytes(32))",
    "garbage": "os.write(3, b'GET / HTTP/1.1')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_host_that_breaks_the_protocol_is_killed_with_all_its_models(name: str) -> None:
    async def test() -> None:
        script = f"{READY}{OBEY}\ntake()\n{HOSTILE[name]}\ntime.sleep(60)"
        async with fake_host(script, COUNT) as host:
            await host.begin(HOST)
            seats = [host.take_seat(DEFAULT_LIMITS, 1) for _ in range(2)]
            with pytest.raises(Refusal) as caught:
                await say_all(seats[0])
            for seat in seats:
                assert (await lost(seat)).cause is Cause.PROTOCOL_VIOLATION
            assert caught.value.failure.cause is Cause.PROTOCOL_VIOLATION

    run(test)


@pytest.mark.parametrize("message", ["CLOSED", "GONE", "LOADED"])
def test_a_host_that_floods_with_what_it_may_say_once_is_killed(message: str) -> None:
    async def test() -> None:
        script = f"{READY}{OBEY}\nfor _ in range(6): obey()\ntake()\n"
        async with fake_host(f"{script}while True: said({message}, 0)", COUNT) as host:
            await host.begin(HOST)
            seats = [await loaded(host) for _ in range(2)]
            await seats[0].end(CLOSED)
            assert (await lost(seats[1])).cause is Cause.PROTOCOL_VIOLATION

    run(test)


def test_a_channel_that_the_host_closes_by_itself_is_held_against_it() -> None:
    async def test() -> None:
        script = (
            f"{OBEDIENT.replace('while True: obey()', '')}\n"
            + """
while obey() != PING: pass
said(GONE, 0); said(GONE, 1)
while True: obey()
"""
        )
        async with fake_host(script, COUNT) as host:
            await host.begin(HOST)
            seats = [await loaded(host) for _ in range(3)]
            client = seats[0].channel
            assert client is not None
            seats[0].channel = None  # given to its client, who has it
            seats[1].drop_channel()  # its client has closed it
            host.ping()
            failure = await lost(seats[0])
            assert failure.cause is Cause.CRASHED
            assert "still held" in failure.message
            assert (await lost(seats[1])).cause is Cause.CLOSED
            assert seats[2].lost is None
            client.close()

    run(test)


def test_two_origins_and_two_principals_never_share_a_host() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            made: list[tuple[Owner, Host]] = []

            class Supervising:
                """Makes hosts as the supervisor does."""

                async def spawn_host(self, owner: Owner) -> Host:
                    host = await stack.enter_async_context(fake_host(OBEDIENT, COUNT))
                    await host.begin(HOST)
                    made.append((owner, host))
                    return host

                def order(self, *_: object) -> Go:
                    return GO

            supervising: Any = Supervising()
            hosts = Hosts(supervising)
            owners = [Owner(1, "a"), Owner(1, "b"), Owner(2, "a"), Owner(1, "a")]
            # At the same time: the second model of an origin waits for its first one's host.
            seats = await asyncio.gather(
                *(hosts.seat(owner, DEFAULT_LIMITS, 1, 0) for owner in owners)
            )
            assert {owner for owner, _ in made} == set(owners)
            assert len(made) == 3
            assert len({seat.pid for seat in seats}) == 3
            assert seats[0].pid == seats[3].pid

    run(test)


def test_counts_of_calls_are_each_models_own() -> None:
    async def test() -> None:
        script = OBEDIENT.replace("bytes(8 * 3)", 'struct.pack("<3Q", 5, 0, 2**64 - 1)')
        async with fake_host(script, COUNT) as host:
            await host.begin(HOST)
            seats = [await loaded(host) for _ in range(3)]
            host.ping()
            while not host.calls:
                await asyncio.sleep(0.001)
            assert [seat.calls for seat in seats] == [5, 0, 2**64 - 1]
            assert host.calls == 2**64 - 1

    run(test)


@pytest.mark.parametrize("loading", [False, True])
def test_a_host_that_is_silent_for_too_long_is_killed(loading: bool) -> None:
    limits = DEFAULT_LIMITS.lowered_by(Limits(compute_seconds=0.1, load_seconds=0.1))

    async def test() -> None:
        script = f"{OBEDIENT.replace('while True: obey()', '')}\n" + (
            "while obey() != MODEL_END: pass\n" + ("take()\n" if loading else "")
        )
        async with fake_host(script + "time.sleep(60)", COUNT, limits) as host:
            await host.begin(HOST)
            seats = [await loaded(host, limits)]
            if loading:
                seats.append(await seated(host, limits))
                await seats[1].end_model()
            host.ping()
            while host.lost is None:
                await asyncio.sleep(0.05)
                host.ping()
            failure = await lost(seats[0])
            assert failure.cause is Cause.TIMEOUT
            assert failure.limit == ("load_seconds" if loading else "compute_seconds")
            # It was the load that never ended.
            assert [seat.suspect for seat in seats] == ([False, True] if loading else [True])

    run(test)
