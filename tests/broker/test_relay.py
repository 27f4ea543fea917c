"""The relay: the broker as a client of a worker that nobody trusts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loader_service.broker.refusal import Refusal
from loader_service.broker.relay import Answer, CallTimes, Phases, Relay
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    ModelDescription,
    SignatureDescription,
    TensorDescription,
)
from model_loader_wire.frames import Entry
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from tests.support.fake_worker import HANG_SECONDS, fake_worker, run
from tests.support.stopping import stopped

FIXED = TensorDescription("x", DataType.UINT8, (4,), 4)
OPEN = TensorDescription("y", DataType.UINT8, (None,), None)
DESCRIPTION = ModelDescription((SignatureDescription("", (FIXED,), (OPEN,)),), "", "")
LIMITS = DEFAULT_LIMITS.lowered_by(Limits(output_bytes=1000, tensor_bytes=100))
IMPATIENT = LIMITS.lowered_by(Limits(compute_seconds=0.5))
"""For workers that never answer; for others the time of a process's start is in it."""
ENTRY = Entry(DataType.UINT8, (4,), 4)

# The channel from the worker's side: `request()` reads one, `reply(...)` answers it.
FRAMES = """
def request():
    head = read(channel, 48)
    magic, kind, _, signature, sequence, payload, _, _, table, tensors = struct.unpack(
        "<4sBBHQQQQIHxx", head)
    read(channel, table)
    return kind, sequence, read(channel, payload)
def entry(count, code=11, rank=1, dimension=None):
    dimensions = [count if dimension is None else dimension] * rank
    return struct.pack("<BBxxxxxxQ", code, rank, count) + struct.pack(f"<{rank}q", *dimensions)
def reply(sequence, payload=b"", kind=129, table=None, tensors=1, length=None, magic=b"MLC1"):
    table = entry(len(payload)) if table is None else table
    length = len(payload) if length is None else length
    channel.sendall(struct.pack("<4sBBHQQQQIHxx", magic, kind, 0, 0, sequence, length, 5, 6,
                                len(table), tensors) + table + payload)
"""
ECHO = """
while True:
    kind, sequence, payload = request()
    if kind == 2:
        reply(sequence, kind=130, table=b"", tensors=0)
    else:
        reply(sequence, payload[::-1])
"""


@asynccontextmanager
async def relay(script: str, limits: Limits = LIMITS) -> AsyncIterator[tuple[Relay, Worker]]:
    """A relay to a worker that runs `script`."""
    async with fake_worker(FRAMES + script, limits) as worker:
        channel, worker.channel = worker.channel, None
        assert channel is not None
        yield Relay(channel, worker, DESCRIPTION, limits), worker


async def compute(relay: Relay, data: bytes = b"1234") -> Answer:
    """Compute with one input."""
    return await relay.compute(0, [ENTRY], [data])


async def failure_of(relay: Relay) -> Failure:
    """The failure of a computation that must fail."""
    with pytest.raises(Refusal) as caught:
        await compute(relay)
    return caught.value.failure


def test_the_phases_of_a_call_are_all_of_it() -> None:
    times = CallTimes(asked=1.0, began=1.25, sent=1.5, first=2.5, done=2.75)
    phases = times.phases(compute_ns=750_000_000)
    assert phases == Phases(send=0.25, queue=0.5, compute=0.75, reply=0.25)
    assert phases.send + phases.queue + phases.compute + phases.reply == times.done - times.asked
    # A worker cannot have computed longer than it was waited for.
    assert times.phases(compute_ns=10**18) == Phases(send=0.25, queue=0.25, compute=1.0, reply=0.25)


def test_answers_come_back_with_their_times() -> None:
    async def test() -> None:
        async with relay(ECHO) as (it, worker):
            answer = await compute(it)
            assert answer.tensors == (b"4321",)
            assert answer.entries == (Entry(DataType.UINT8, (4,), 4),)
            assert (answer.queue_ns, answer.compute_ns) == (5, 6)
            await it.reset()
            assert (await compute(it, b"abcd")).tensors == (b"dcba",)
            assert worker.lost is None

    run(test)


@pytest.mark.parametrize(
    ("signature", "entries", "text"),
    [
        (1, [ENTRY], "no signature 1"),
        (0, [], "0 inputs came"),
        (0, [ENTRY, ENTRY], "2 inputs came"),
        (0, [Entry(DataType.INT8, (4,), 4)], "not int8"),
        (0, [Entry(DataType.UINT8, (5,), 5)], "not uint8 (5,)"),
        (0, [Entry(DataType.UINT8, (4,) * 300, 4)], "not uint8"),
        (0, [Entry(DataType.UINT8, (4,), 3)], "has 3 bytes"),
    ],
)
def test_what_does_not_fit_never_reaches_the_worker(
    signature: int, entries: list[Entry], text: str
) -> None:
    async def test() -> None:
        async with relay(ECHO) as (it, _):
            with pytest.raises(Refusal) as caught:
                await it.compute(signature, entries, [bytes(item.byte_length) for item in entries])
            assert caught.value.failure.cause is Cause.INVALID_INPUT
            assert text in caught.value.failure.message
            assert (await compute(it)).tensors == (b"4321",)

    run(test)


def test_inputs_over_the_limit_are_refused_by_name() -> None:
    limits = DEFAULT_LIMITS.lowered_by(Limits(tensor_bytes=3))

    async def test() -> None:
        async with relay(ECHO, limits) as (it, worker):
            failure = await failure_of(it)
            assert (failure.cause, failure.limit) == (Cause.LIMIT, "tensor_bytes")
            assert (failure.value, failure.maximum) == (4, 3)
            assert worker.lost is None

    run(test)


def test_a_failure_leaves_the_model_usable() -> None:
    script = """
_, sequence, _ = request()
reply(sequence, b'{"cause":"failed","message":"no\\\\u001b","limit":"","value":0,"maximum":0}',
      kind=131, table=b"", tensors=0)
"""

    async def test() -> None:
        async with relay(script + ECHO) as (it, worker):
            failure = await failure_of(it)
            assert (failure.cause, failure.message) == (Cause.FAILED, "no\\x1b")
            assert (await compute(it)).tensors == (b"4321",)
            assert worker.lost is None

    run(test)


HOSTILE = {
    "another sequence": "reply(sequence + 1, b'x')",
    "no magic": "reply(sequence, b'x', magic=b'HTTP')",
    "a request": "reply(sequence, b'x', kind=1)",
    "done instead": "reply(sequence, kind=130, table=b'', tensors=0)",
    "too much": "reply(sequence, b'x' * 1001)",
    "a promise of too much": "reply(sequence, b'', length=1 << 60)",
    "another type": "reply(sequence, b'x', table=entry(1, code=10))",
    "an unknown type": "reply(sequence, b'x', table=entry(1, code=99))",
    "another rank": "reply(sequence, b'x', table=entry(1, rank=2))",
    "two outputs": "reply(sequence, b'xy', table=entry(1) * 2, tensors=2)",
    "no outputs": "reply(sequence, b'', table=b'', tensors=0)",
    "a negative size": "reply(sequence, b'x', table=entry(1, dimension=-1))",
    "a false size": "reply(sequence, b'x', table=entry(1, dimension=2))",
    "a table cut short": "reply(sequence, b'x', table=entry(1)[:20])",
    "a failure that is none": "reply(sequence, b'[]', kind=131, table=b'', tensors=0)",
    "a cause it cannot know": (
        'reply(sequence, b\'{"cause":"policy-violation","message":"","limit":"",'
        '"value":0,"maximum":0}\', kind=131, table=b\'\', tensors=0)'
    ),
    "too long a failure": "reply(sequence, b'x' * 65537, kind=131, table=b'', tensors=0)",
    "two answers at once": "reply(sequence, b'x' * 10); reply(sequence, b'y' * 10)",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_ends_the_worker_and_is_not_given(name: str) -> None:
    script = f"""
_, sequence, _ = request()
both = []
sendall = channel.sendall
class Whole:
    def sendall(self, data): both.append(data)
real, channel = channel, Whole()
{HOSTILE[name]}
real.sendall(b"".join(both))
time.sleep(60)
"""

    async def test() -> None:
        async with relay(script) as (it, worker):
            failure = await failure_of(it)
            assert failure.cause is Cause.PROTOCOL_VIOLATION, failure
            assert failure.model_lost
            assert worker.lost is not None
            assert (await failure_of(it)).cause is Cause.LOST

    run(test)


@pytest.mark.parametrize(
    "script",
    [
        "time.sleep(60)",
        "request()\ntime.sleep(60)",
        "request()\nchannel.send(b'M')\ntime.sleep(60)",
    ],
    ids=["does not read", "does not answer", "stops in the middle"],
)
def test_a_worker_that_takes_too_long_is_ended(script: str) -> None:
    async def test() -> None:
        async with relay(script, IMPATIENT) as (it, worker):
            failure = await failure_of(it)
            assert (failure.cause, failure.limit) == (Cause.TIMEOUT, "compute_seconds")
            assert failure.maximum == 0.5
            assert worker.lost is not None

    run(test)


def test_a_worker_that_dies_in_a_call_is_judged_by_its_death() -> None:
    async def test() -> None:
        script = "request()\nos.kill(os.getpid(), signal.SIGSEGV)"
        async with relay(script) as (it, _):
            failure = await failure_of(it)
            assert (failure.cause, failure.model_lost) == (Cause.CRASHED, True)

    run(test)


def test_a_worker_that_closes_its_channel_is_ended() -> None:
    """Its control socket is open still, and nothing else would end it."""

    async def test() -> None:
        async with relay("request()\nchannel.close()\ntime.sleep(60)") as (it, worker):
            failure = await failure_of(it)
            assert failure.cause is Cause.PROTOCOL_VIOLATION
            assert worker.lost is not None

    run(test)


def test_a_caller_that_leaves_does_not_disturb_the_next() -> None:
    script = """
count = 0
while True:
    kind, sequence, payload = request()
    count += 1
    reply(sequence, payload[::-1] + bytes([count]))
"""

    async def test() -> None:
        async with relay(script) as (it, worker):
            names = (b"aaaa", b"bbbb", b"abcd")
            with stopped(worker.pid):
                tasks = [asyncio.create_task(compute(it, name)) for name in names]
                await asyncio.sleep(0.02)
                tasks[0].cancel()  # under way: it goes on to its end
                tasks[1].cancel()  # still waiting: it never begins
            assert (await tasks[2]).tensors == (b"dcba\x02",)
            assert (await compute(it)).tensors == (b"4321\x03",)
            assert all(task.cancelled() for task in tasks[:2])
            assert worker.lost is None

    run(test)


def test_a_caller_that_left_does_not_save_a_slow_worker() -> None:
    async def test() -> None:
        async with relay("request()\ntime.sleep(60)", IMPATIENT) as (it, worker):
            task = asyncio.create_task(compute(it))
            await asyncio.sleep(0.02)
            task.cancel()
            failure = await worker.wait(HANG_SECONDS)
            assert failure is not None
            assert failure.cause is Cause.TIMEOUT

    run(test)


def test_many_callers_get_their_own_answers() -> None:
    async def test() -> None:
        async with relay(ECHO) as (it, _):
            data = [f"{number:04}".encode() for number in range(200)]
            answers = await asyncio.gather(*(compute(it, item) for item in data))
            assert [answer.tensors[0] for answer in answers] == [item[::-1] for item in data]

    run(test)
