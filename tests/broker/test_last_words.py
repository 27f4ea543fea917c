"""A worker's stderr: the tail, escaped, at a bounded rate."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from loader_service.broker import last_words
from loader_service.broker.last_words import KEPT, LastWords

HANG_SECONDS = 20.0


@asynccontextmanager
async def pipe(per_second: int = last_words.PER_SECOND) -> AsyncIterator[tuple[LastWords, int]]:
    """Last words, and the end to write them to."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    words = LastWords(reading, per_second)
    try:
        yield words, writing
    finally:
        words.close()
        os.close(writing)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test that is a coroutine."""

    async def bounded() -> None:
        async with asyncio.timeout(HANG_SECONDS):
            await test()

    asyncio.run(bounded())


def test_the_tail_is_kept() -> None:
    async def test() -> None:
        async with pipe() as (words, writing):
            for number in range(1000):
                os.write(writing, f"line {number:4}\n".encode())
                await asyncio.sleep(0)
            text = words.text()
            assert text.endswith("line  999")
            assert "line    0" not in text
            assert KEPT - 20 < len(text) <= KEPT

    run(test)


def test_what_was_written_at_the_very_end_is_read() -> None:
    async def test() -> None:
        async with pipe() as (words, writing):
            os.write(writing, b"once more")
            assert words.text() == "once more"

    run(test)


def test_control_characters_are_escaped_and_bad_bytes_replaced() -> None:
    async def test() -> None:
        async with pipe() as (words, writing):
            os.write(writing, b"\x1b[31mred\x00\xff\xe2\x80\xaetop\n")
            text = words.text()
            assert text.isprintable()
            assert "\\x1b[31mred\\x00" in text

    run(test)


def test_reading_pauses_when_a_worker_writes_without_end() -> None:
    async def test() -> None:
        async with pipe() as (words, writing):
            taken = 0
            while True:
                try:
                    taken += os.write(writing, b"x" * 65536)
                except BlockingIOError:
                    break
                for _ in range(4):
                    await asyncio.sleep(0)
            # All that was read in this second, and a pipe full that was not.
            assert last_words.PER_SECOND <= taken <= last_words.PER_SECOND + (3 << 16)
            assert words.text() == "x" * KEPT

    run(test)


def test_the_end_of_the_pipe_and_closing_twice_are_no_error() -> None:
    async def test() -> None:
        reading, writing = os.pipe()
        words = LastWords(reading)
        os.write(writing, b"the end")
        os.close(writing)
        await asyncio.sleep(0.01)
        assert words.text() == "the end"
        words.close()
        words.close()

    run(test)


def test_how_much_is_read_in_a_second_is_a_setting() -> None:
    async def test() -> None:
        async with pipe(per_second=10_000) as (words, writing):
            size = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
            assert os.write(writing, b"x" * size) == size
            for _ in range(100):
                await asyncio.sleep(0)
            # Whole reads of 10,000 bytes: the first one reaches the bound.
            assert _unread(writing) == size - 10_000
            assert words.text() == "x" * KEPT

    run(test)


def _unread(writing: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(writing, termios.FIONREAD, b"\0" * 4))
    return int(count)
