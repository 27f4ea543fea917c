"""The broker's handle of a worker, whatever that worker does."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.broker import pings
from loader_service.broker.refusal import Refusal
from loader_service.broker.worker import REPORTS_PER_PING, Worker
from loader_service.worker.control import Message
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from tests.support.fake_worker import GO, HANG_SECONDS, READY, fake_worker, run


async def refusal_of(worker: Worker, *kinds: Message) -> Failure:
    """Begin and expect a message; returns the failure that must come instead."""
    try:
        await worker.begin(GO)
        message = await worker.expect(*kinds)
    except Refusal as refusal:
        return refusal.failure
    raise AssertionError(f"no refusal, but {message}")


async def lost(worker: Worker) -> Failure:
    """Wait for the worker's end."""
    failure = await worker.wait(HANG_SECONDS)
    assert failure is not None
    return failure


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def send_without_end(worker: Worker) -> None:
    """Send a model that never ends."""
    while True:
        await worker.send_model(memoryview(bytes(1 << 20)))


HOSTILE = {
    "garbage": 'os.write(3, b"GET / HTTP/1.1")',
    "random": "os.write(3, os.urandom(4096))",
    "endless": "\nwhile True: say(READY, b'{}')",
    "endless pongs": "\nwhile True: say(PONG, bytes(16))",
    "unknown kind": "say(99)",
    "a kind for workers": "say(MODEL, b'x')",
    "huge length": 'os.write(3, struct.pack("<IB", 0xFFFFFFFF, LOADED))',
    "no object": "say(LOADED, b'[]')",
    "no utf-8": "say(LOADED, bytes([0xff]) * 100)",
    "deep": "say(LOADED, b'[' * 1000000)",
    "deep object": "say(LOADED, b'{\"a\":' * 500000)",
    "wrong message": "say(INSPECTED, b'{}')",
    "pong without ping": "say(PONG, bytes(16))",
    "pong of wrong size": "say(PONG, b'x')",
    "control closed": "\nfor s in (control,): s.close()\ntime.sleep(60)",
    "half a message": "os.write(3, b'12'); control.close(); time.sleep(60)",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_worker_that_breaks_the_protocol_is_killed(name: str) -> None:
    async def test() -> None:
        async with fake_worker(READY + HOSTILE[name] + "\ntime.sleep(60)") as worker:
            failure = await refusal_of(worker, Message.LOADED)
            assert failure.cause is Cause.PROTOCOL_VIOLATION, failure
            assert failure.model_lost
            assert (await lost(worker)).cause is Cause.PROTOCOL_VIOLATION

    run(test)


def test_a_serving_worker_says_nothing_but_pongs() -> None:
    async def test() -> None:
        script = f"{READY}\nread(channel, 1)\nsay(LOADED, b'{{}}')\ntime.sleep(60)"
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            worker.serving = True
            assert worker.channel is not None
            worker.channel.send(b"x")
            assert (await lost(worker)).cause is Cause.PROTOCOL_VIOLATION

    run(test)


def test_a_worker_reports_on_its_devices_a_few_times_between_pings() -> None:
    async def test() -> None:
        tell = (
            f"for number in range({REPORTS_PER_PING}): say({Message.DELEGATION:d}, b'%d' % number)"
        )
        script = f"{READY}\nread(channel, 1)\n{tell}\nkind, ping = take()\n{tell}"
        script += f"\nsay(PONG, ping + bytes(8))\nread(channel, 1)\nsay({Message.DELEGATION:d})"
        async with fake_worker(script + "\ntime.sleep(60)") as worker:
            await worker.begin(GO)
            worker.has_devices({"external:little": ()})
            worker.serving = True
            assert worker.channel is not None
            worker.channel.send(b"x")
            last = b"%d" % (REPORTS_PER_PING - 1)
            await until(lambda: worker.reported == last)
            worker.reported = b""
            worker.ping()
            await until(lambda: worker.reported == last)
            assert worker.lost is None
            worker.channel.send(b"x")
            failure = await lost(worker)
            assert failure.cause is Cause.PROTOCOL_VIOLATION
            assert "too many reports on devices" in failure.message

    run(test)


def test_a_dead_worker_goes_without_the_garbage_collector() -> None:
    async def test() -> None:
        async with fake_worker(READY + "time.sleep(60)") as worker:
            await worker.begin(GO)
            await worker.end(Failure(Cause.CLOSED, "the model was closed"))
        forgotten = weakref.ref(worker)
        del worker
        ends = time.monotonic() + HANG_SECONDS
        while forgotten() is not None and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        assert forgotten() is None

    gc.collect()
    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("script", "cause", "text"),
    [
        ("os._exit(0)", Cause.CRASHED, "by itself with status 0"),
        ("os._exit(3)", Cause.CRASHED, "status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Cause.CRASHED, "SIGSEGV"),
        ("os.kill(os.getpid(), 40)", Cause.CRASHED, "signal 40"),
        ("os.kill(os.getpid(), signal.SIGSYS)", Cause.POLICY_VIOLATION, "forbids"),
        ("os.kill(os.getpid(), signal.SIGKILL)", Cause.KILLED, "somebody else"),
        ("os.write(2, b'boom\\x1b[2J'); os.abort()", Cause.CRASHED, "SIGABRT"),
    ],
)
@pytest.mark.parametrize("when", ["before go", "after ready"])
def test_a_worker_that_dies_is_judged(script: str, cause: Cause, text: str, when: str) -> None:
    async def test() -> None:
        async with fake_worker((READY if when == "after ready" else "") + script) as worker:
            failure = await refusal_of(worker, Message.LOADED)
            assert failure.cause is cause
            assert text in failure.message
            assert failure.model_lost
            if "boom" in script:
                assert failure.last_words == "boom\\x1b[2J"

    run(test)


def test_a_worker_that_is_dead_before_it_begins() -> None:
    async def test() -> None:
        async with fake_worker("os._exit(3)") as worker:
            await lost(worker)
            assert (await refusal_of(worker)).cause is Cause.CRASHED

    run(test)


def test_a_death_is_seen_although_somebody_holds_the_worker_s_end_of_the_socket() -> None:
    async def test() -> None:
        held = "\nif os.fork(): os._exit(3)\nsignal.alarm(25)\nchannel.recv(1)\nos._exit(0)"
        async with fake_worker(READY + held) as worker:
            await worker.begin(GO)
            failure = await lost(worker)
            assert failure.cause is Cause.CRASHED
            assert "status 3" in failure.message

    run(test)


FAILED = "say(FAILED, b'{}'); time.sleep(60)"
REPORT = '{"cause": "%s", "message": "m", "limit": "l", "value": %s, "maximum": 2}'


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (REPORT % ("unsupported", 1), Cause.UNSUPPORTED),
        (REPORT % ("out-of-memory", "1e999"), Cause.OUT_OF_MEMORY),
        (REPORT % ("timeout", 1), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("policy-violation", 1), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("forbidden", 1), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("nonsense", 1), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("failed", '"x"'), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("failed", "[]"), Cause.PROTOCOL_VIOLATION),
        (REPORT % ("failed", "9" * 4000), Cause.FAILED),
        ("{}", Cause.PROTOCOL_VIOLATION),
    ],
)
def test_a_worker_says_only_what_it_can_know(report: str, cause: Cause) -> None:
    async def test() -> None:
        script = f"{READY}\nsay(FAILED, {report.encode()!r})\ntime.sleep(60)"
        async with fake_worker(script) as worker:
            assert (await refusal_of(worker, Message.LOADED)).cause is cause

    run(test)


def test_a_report_of_layers_is_capped_and_escaped() -> None:
    async def test() -> None:
        script = """
import json
take()
say(READY, json.dumps({"layers": ["a" * 1000, 5, "\\x1b"] + ["x"] * 1000,
                       "missing": {"\\x00": "y" * 5000}}).encode())
time.sleep(60)
"""
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            assert len(worker.layers) == 64
            assert (len(worker.layers[0]), worker.layers[1:3]) == (64, ("5", "\\x1b"))
            ((layer, reason),) = worker.missing.items()
            assert (layer, len(reason)) == ("\\x00", 200)

    run(test)


def test_a_model_goes_to_the_worker_as_it_comes() -> None:
    async def test() -> None:
        script = f"""{READY}
import json
pieces = []
while True:
    kind, payload = take()
    if kind == MODEL_END:
        break
    pieces.append(len(payload))
say(LOADED, json.dumps({{"pieces": pieces}}).encode())
"""
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            for size in (1, 1 << 20, 5):
                await worker.send_model(memoryview(bytes(size)))
            await worker.end_model()
            assert await worker.expect(Message.LOADED) == {"pieces": [1, 1 << 20, 5]}

    run(test)


def test_sending_to_a_worker_that_has_failed_ends_with_its_reason() -> None:
    async def test() -> None:
        script = f"{READY}\nsay(FAILED, {(REPORT % ('limit', 1)).encode()!r})\nos._exit(0)"
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            with pytest.raises(Refusal) as caught:
                await send_without_end(worker)
            assert caught.value.failure.cause is Cause.LIMIT

    run(test)


@pytest.mark.parametrize("unread", [0, 100_000])
def test_what_a_worker_said_before_it_died_is_heard(unread: int) -> None:
    """Its death and its last message come to the broker in one moment, in whichever order."""

    async def test() -> None:
        script = (
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
            f"{READY}\nsignal.sigwait({{signal.SIGUSR1}})\n"
            f"say(FAILED, {(REPORT % ('limit', 1)).encode()!r})\nos._exit(0)"
        )
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            if unread:
                await worker.send_model(memoryview(bytes(unread)))
            os.kill(worker.pid, signal.SIGUSR1)
            while Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2][1] != "Z":
                time.sleep(0.01)  # nothing else may run meanwhile
            with pytest.raises(Refusal) as caught:
                await worker.expect(Message.LOADED)
            assert caught.value.failure.cause is Cause.LIMIT

    run(test)


def test_sending_to_a_worker_that_does_not_read_waits() -> None:
    async def test() -> None:
        async with fake_worker(f"{READY}\ntime.sleep(60)") as worker:
            await worker.begin(GO)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send_without_end(worker), 0.2)
            assert worker.lost is None

    run(test)


PONGS = """
while True:
    kind, payload = take()
    assert kind == PING, kind
    say(PONG, payload + struct.pack("<Q", 7))
"""


def test_a_ping_is_answered_with_the_calls() -> None:
    async def test() -> None:
        async with fake_worker(READY + PONGS) as worker:
            await worker.begin(GO)
            worker.ping()
            await asyncio.sleep(0.05)
            assert worker.calls == 0, "no ping before it serves"
            worker.serving = True
            worker.ping()
            while worker.calls == 0:
                await asyncio.sleep(0.001)
            assert worker.calls == 7
            assert worker.lost is None

    run(test)


def test_a_silent_worker_is_killed_with_the_limits_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "PING_SLACK_SECONDS", 0)
    limits = DEFAULT_LIMITS.lowered_by(Limits(compute_seconds=0.05))

    async def test() -> None:
        async with fake_worker(f"{READY}\ntime.sleep(60)", limits) as worker:
            await worker.begin(GO)
            worker.serving = True
            while worker.lost is None:
                worker.ping()
                await asyncio.sleep(0.01)
            failure = worker.lost
            assert (failure.cause, failure.limit) == (Cause.TIMEOUT, "compute_seconds")
            assert failure.value > failure.maximum == 0.05

    run(test)


def test_a_busy_worker_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings while the first is unanswered do not add up."""
    script = f"{READY}\ntime.sleep(0.2)\n{PONGS}"

    async def test() -> None:
        async with fake_worker(script) as worker:
            await worker.begin(GO)
            worker.serving = True
            while worker.calls == 0:
                worker.ping()
                await asyncio.sleep(0.01)
            assert worker.lost is None

    run(test)


def test_the_first_reason_for_a_kill_stays() -> None:
    async def test() -> None:
        async with fake_worker(f"{READY}\ntime.sleep(60)") as worker:
            await worker.begin(GO)
            first, second = Failure(Cause.TIMEOUT, "first"), Failure(Cause.CLOSED, "second")
            worker.kill(first)
            assert (await worker.end(second)).message == "first"
            worker.kill(second)
            assert (await worker.verdict()).message == "first"

    run(test)


def test_one_who_waits_for_the_end_and_leaves_takes_nothing_from_the_others() -> None:
    async def test() -> None:
        async with fake_worker(f"{READY}\ntime.sleep(60)") as worker:
            await worker.begin(GO)
            waiters = [asyncio.create_task(worker.verdict()) for _ in range(3)]
            waiters.append(asyncio.create_task(worker.wait(HANG_SECONDS)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            waiters[0].cancel()
            waiters[3].cancel()
            await asyncio.sleep(0)
            assert worker.lost is None
            worker.kill(Failure(Cause.TIMEOUT, "late"))
            assert [(await waiter).cause for waiter in waiters[1:3]] == [Cause.TIMEOUT] * 2

    run(test)


def test_a_process_that_does_not_die_is_given_up() -> None:
    async def test() -> None:
        async with fake_worker(f"{READY}\ntime.sleep(60)") as worker:
            await worker.begin(GO)
            worker._verdict_seconds = 0.01
            send = signal.pidfd_send_signal
            signal.pidfd_send_signal = lambda *_: None
            try:
                failure = await worker.end(Failure(Cause.TIMEOUT, "late"))
            finally:
                signal.pidfd_send_signal = send
            assert (failure.cause, failure.model_lost) == (Cause.TIMEOUT, True)
            assert worker.lost is None
            worker._verdict_seconds = HANG_SECONDS

    run(test)


def test_a_death_that_somebody_else_saw_is_no_endless_loop() -> None:
    async def test() -> None:
        async with fake_worker("time.sleep(60)") as worker:
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            assert (await lost(worker)).cause is Cause.INTERNAL

    run(test)


def test_who_asks_late_is_told_at_once() -> None:
    async def test() -> None:
        told: list[Worker] = []
        async with fake_worker("time.sleep(60)") as worker:
            worker.when_ended(told.append)
            assert not told
            await worker.end(Failure(Cause.CLOSED, "over"))
            assert told == [worker]
            worker.when_ended(told.append)
            assert told == [worker] * 2
            assert worker.usage().memory_bytes == 0

    run(test)


def test_memory_beyond_the_limit_ends_a_worker_where_no_cgroup_holds_it() -> None:
    limits = DEFAULT_LIMITS.lowered_by(Limits(memory_bytes=64 << 20))
    script = (
        READY
        + """
small = b"x" * (32 << 20)
say(LOADED, b"{}")
take()
large = b"x" * (64 << 20)
time.sleep(60)
"""
    )

    async def test() -> None:
        async with fake_worker(script, limits) as worker:
            await worker.begin(GO)
            await worker.expect(Message.LOADED)
            worker.hold_memory()
            assert worker.lost is None
            worker.serving = True
            worker.ping()
            while worker.lost is None:
                worker.hold_memory()
                await asyncio.sleep(0.01)
            failure = worker.lost
            assert (failure.cause, failure.limit) == (Cause.OUT_OF_MEMORY, "memory_bytes")
            assert failure.value > failure.maximum == 64 << 20

    run(test)
