"""A loading worker and the compiled partitions: honest ones are served, others are ended."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import weakref
from pathlib import Path

import pytest

from loader_service.broker.compiled_exchange import CompiledPartitions, cache_limits
from loader_service.broker.compiled_store import place_of
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.worker.compiled_cache import BrokerCache
from loader_service.worker.control import COMPILED_PIECE, MOST_ENTRIES, Message
from model_loader_wire.causes import Cause, Failure
from tests.support.fake_worker import GO, HANG_SECONDS, READY, fake_worker, run

OWNER = Owner(1000, "my program")
MODEL, TOKEN, KEY = b"m" * 32, b"t" * 32, b"k" * 32
TOTAL = 1 << 20
ENTRY = cache_limits(TOTAL).of_an_entry
WORDS = f"""
take()
WANTED, COMPILED, PART, CACHED = 24, 25, 26, 8
KEY, ENTRY = {KEY!r}, {ENTRY}
def announce(length, key=KEY):
    say(COMPILED, struct.pack("<32sQ", key, length))
def put(blob, key=KEY):
    announce(len(blob), key)
    for start in range(0, len(blob), 1 << 19):
        say(PART, blob[start:start + (1 << 19)])
def get(key=KEY):
    say(WANTED, key)
    kind, payload = take()
    assert kind == CACHED
    (length,) = struct.unpack("<Q", payload)
    blob = b""
    while len(blob) < length:
        kind, piece = take()
        assert kind == CACHED
        blob += piece
    return blob
def done(text):
    say(INSPECTED, ('{{"summary": "%s"}}' % text).encode())
    time.sleep(600)
"""


async def told(script: str, partitions: CompiledPartitions, owner: Owner = OWNER) -> str:
    """Run a worker's script while it loads a model; return what it says in the end."""
    async with fake_worker(READY + WORDS + script) as worker:
        await worker.begin(GO)
        worker.exchanges(partitions.exchange(owner, MODEL, TOKEN))
        await worker.end_model()
        async with asyncio.timeout(HANG_SECONDS):
            fields = await worker.expect(Message.INSPECTED)
    return str(fields["summary"])


def test_a_worker_finds_what_one_before_it_gave() -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        script = (
            "found = get(); put(b'x' * 70000 + b'end'); done('%d %d' % (len(found), len(get())))"
        )
        assert await told(script, partitions) == "0 70003"
        assert await told("done(get()[-3:].decode())", partitions) == "end"
        # Not under another key, and not for another origin.
        assert await told("done(len(get(b'o' * 32)))", partitions) == "0"
        assert await told("done(len(get()))", partitions, Owner(1000, "other")) == "0"

    run(test)


def test_another_model_or_token_finds_nothing() -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        await told("put(b'poison'); get(); done('')", partitions)
        for model, token in ((b"o" * 32, TOKEN), (MODEL, b"o" * 32)):
            exchange = partitions.exchange(OWNER, model, token)
            (answer,) = await exchange.took(Message.WANTED, KEY)
            assert answer[5:] == bytes(8)

    run(test)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("say(WANTED, b'short')", "may not be asked for so"),
        ("for _ in range(17): get()", "may not be asked for so"),
        ("announce(100); get()", "may not be asked for so"),
        ("announce(ENTRY + 1)", "may not have"),
        ("announce(0)", "may not have"),
        ("announce(2 ** 63)", "may not have"),
        ("say(COMPILED, b'short')", "may not come so"),
        ("announce(100); announce(100)", "may not come so"),
        ("say(PART, b'unasked')", "other bytes"),
        ("announce(5); say(PART, b'sixsix')", "other bytes"),
        ("announce(5); say(PART, b'')", "other bytes"),
        ("announce(5); say(PART, b'x')", "other bytes"),
        ("announce(ENTRY); say(PART, bytes(ENTRY - 1))", "other bytes"),
        ("while True: put(b'x' * 1000)", "may not come so"),
        ("say(CACHED, bytes(8))", "CACHED may not come"),
    ],
)
def test_a_worker_that_does_otherwise_is_ended(script: str, words: str) -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        with pytest.raises(Refusal, match=words) as caught:
            await told(script + "\ntime.sleep(600)", partitions)
        assert caught.value.failure.cause is Cause.PROTOCOL_VIOLATION

    run(test)


@pytest.mark.parametrize("script", ["get()", "put(b'x')"])
def test_a_worker_without_a_token_may_not_ask(script: str) -> None:
    async def test() -> None:
        async with fake_worker(READY + WORDS + script) as worker:
            await worker.begin(GO)
            await worker.end_model()
            with pytest.raises(Refusal, match=r"broke the protocol|unasked"):
                await worker.expect(Message.LOADED)

    run(test)


def test_a_worker_that_serves_may_not_ask_any_more() -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        async with fake_worker(READY + WORDS + "get()") as worker:
            await worker.begin(GO)
            worker.exchanges(partitions.exchange(OWNER, MODEL, TOKEN))
            worker.serving = True
            await worker.end_model()
            lost = await worker.wait(HANG_SECONDS)
        assert lost is not None
        assert lost.cause is Cause.PROTOCOL_VIOLATION

    run(test)


def test_one_that_does_not_read_its_answer_holds_up_nobody() -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL * 64, None)
        await told(f"put(b'x' * {4 << 20}); get(); done('')", partitions)
        async with fake_worker(READY + WORDS + "say(WANTED, KEY)\ntime.sleep(600)") as silent:
            await silent.begin(GO)
            silent.exchanges(partitions.exchange(OWNER, MODEL, TOKEN))
            await silent.end_model()
            assert await told("done(len(get()))", partitions) == str(4 << 20)
            assert silent.lost is None

    run(test)


def test_nothing_is_held_for_one_that_serves_or_has_ended() -> None:
    async def test() -> None:
        total = 64 << 20
        partitions = CompiledPartitions(total, None)
        begin = f"say(COMPILED, struct.pack('<32sQ', KEY, {4 << 20})); say(PART, bytes(1 << 19))\n"
        for ends in (False, True):
            async with fake_worker(READY + WORDS + begin + "done('')") as worker:
                await worker.begin(GO)
                exchange = partitions.exchange(OWNER, MODEL, TOKEN)
                worker.exchanges(exchange)
                await worker.end_model()
                while partitions.on_their_way != 4 << 20:
                    await asyncio.sleep(0.001)
                known = weakref.ref(exchange)
                del exchange
                if ends:
                    await worker.end(Failure(Cause.CLOSED, "the test ends it"))
                else:
                    await worker.expect(Message.INSPECTED)
                while known() is not None:
                    await asyncio.sleep(0.001)
                assert partitions.on_their_way == 0

    run(test)


def test_what_is_on_its_way_is_bounded_for_an_origin_and_in_all() -> None:
    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        head = struct.pack("<32sQ", KEY, ENTRY)
        owners = [Owner(1000, f"origin {number}") for number in range(6)]
        begun = [partitions.exchange(owner, MODEL, TOKEN) for owner in owners for _ in range(3)]
        for exchange in begun:
            await exchange.took(Message.COMPILED, head)
        # Two of an entry's size for each of four origins; what more comes is read, and not kept.
        assert partitions.on_their_way == TOTAL
        for exchange in begun:
            assert not list(await exchange.took(Message.COMPILED_PART, bytes(ENTRY)))
        assert partitions.on_their_way == 0
        for owner, length in zip(owners, [ENTRY] * 4 + [0] * 2, strict=True):
            asked = partitions.exchange(owner, MODEL, TOKEN)
            (said, *_) = await asked.took(Message.WANTED, KEY)
            assert said[5:] == struct.pack("<Q", length)
        # Answers that are not taken count, too.
        silent = [partitions.exchange(owners[0], MODEL, TOKEN) for _ in range(3)]
        answers = [await exchange.took(Message.WANTED, KEY) for exchange in silent]
        assert [next(said)[5:] for said in answers] == [
            struct.pack("<Q", length) for length in (ENTRY, ENTRY, 0)
        ]
        assert partitions.on_their_way == 2 * ENTRY
        for exchange in silent:
            exchange.close()
        assert partitions.on_their_way == 0

    run(test)


def test_one_who_is_given_up_while_an_entry_is_written_lets_nobody_in_beside() -> None:
    """The thread goes on when nobody waits for it any more: the next one must come after it."""

    async def test() -> None:
        partitions = CompiledPartitions(TOTAL, None)
        store = partitions._store
        inside, go_on, order = threading.Event(), threading.Event(), []
        keep = store.keep

        def slowly(owner: Owner, place: bytes, blob: bytes) -> bool:
            inside.set()
            go_on.wait(HANG_SECONDS)
            order.append("kept")
            return keep(owner, place, blob)

        store.keep = slowly  # type: ignore[method-assign]
        place = place_of(MODEL, TOKEN, KEY)
        first = asyncio.create_task(partitions.keep(OWNER, place, b"x"))
        await asyncio.to_thread(inside.wait, HANG_SECONDS)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(partitions.find(OWNER, place))
        for _ in range(100):
            await asyncio.sleep(0.001)
        order.append("let go on")
        go_on.set()
        assert await second == b"x"
        assert order == ["let go on", "kept"]
        await partitions.stop()

    asyncio.run(asyncio.wait_for(test(), HANG_SECONDS))


@pytest.mark.parametrize("directory", [False, True])
@pytest.mark.parametrize("length", [1, COMPILED_PIECE, 3 * COMPILED_PIECE + 1])
def test_the_workers_side_and_the_brokers_understand_each_other(
    tmp_path: Path, length: int, directory: bool
) -> None:
    blob = bytes(range(256)) * (length // 256 + 1)
    blob = blob[:length]
    folder = str(tmp_path / "kept") if directory else None
    outcome: list[object] = []

    def work(control: socket.socket) -> None:
        cache = BrokerCache(control, 16 << 20)
        outcome.append(cache.get(KEY))
        cache.put(KEY, blob)
        outcome.append(cache.get(KEY))
        cache.put(KEY, bytes((16 << 20) + 1))  # too large: let go
        cache.close()
        outcome.append(cache.get(KEY))
        control.close()

    async def test() -> None:
        partitions = CompiledPartitions(128 << 20, folder)
        exchange = partitions.exchange(OWNER, MODEL, TOKEN)
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=work, args=(theirs,))
        thread.start()
        reader, writer = await asyncio.open_connection(sock=ours)
        while head := await reader.read(5):
            while len(head) < 5:
                head += await reader.readexactly(5 - len(head))
            count, kind = struct.unpack("<IB", head)
            for data in await exchange.took(Message(kind), await reader.readexactly(count)):
                writer.write(data)
                await writer.drain()
        writer.close()
        thread.join()
        await partitions.stop()

    run(test)
    assert outcome == [None, blob, None]


def test_an_honest_worker_stays_below_what_it_may_ask() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answers = struct.pack("<IBQ", 8, Message.CACHED, 0) * (MOST_ENTRIES + 4)
        ours.sendall(answers)
        cache = BrokerCache(theirs, 100)
        for _ in range(MOST_ENTRIES + 4):
            assert cache.get(KEY) is None
            cache.put(KEY, b"x")
        asked = ours.recv(1 << 16)
    questions = asked.count(struct.pack("<IB", 32, Message.WANTED))
    entries = asked.count(struct.pack("<IB", 40, Message.COMPILED))
    assert (questions, entries) == (MOST_ENTRIES, MOST_ENTRIES)
