"""Hashing sealed memory: piece by piece, so that nobody's large models hold the threads."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from loader_service.broker import model_bytes
from loader_service.broker.model_bytes import Collecting, ModelBytes

PIECE = 1000


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_bytes, "HASHED_AT_A_TIME", PIECE)


class Digest:
    """A digest that waits in its first piece until it is let on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.pieces: list[int] = []

    def update(self, piece: memoryview) -> None:
        """Take in a piece."""
        self.pieces.append(len(piece))
        self.begun.set()
        assert self.gate.wait(10)

    def digest(self) -> bytes:
        """Give what nobody looks at."""
        return b""


def sealed(content: bytes) -> closing[ModelBytes]:
    collecting = Collecting()
    collecting.add(memoryview(content))
    return closing(collecting.seal())


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 7 * PIECE + 5])
def test_the_digest_is_that_of_all_pieces(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    with sealed(content) as held:
        assert asyncio.run(held.sha256()) == hashlib.sha256(content).digest()


def test_a_hash_that_is_cancelled_stops_after_its_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Digest()
    monkeypatch.setattr(hashlib, "sha256", lambda: digest)

    async def main() -> None:
        with sealed(bytes(9 * PIECE)) as held:
            hashing = asyncio.create_task(held.sha256())
            await asyncio.to_thread(digest.begun.wait, 10)
            hashing.cancel()
            digest.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await hashing
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(main())
    assert digest.pieces == [PIECE]


def test_others_have_their_turn_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Digest()
    monkeypatch.setattr(hashlib, "sha256", lambda: digest)

    async def main() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with sealed(bytes(9 * PIECE)) as held:
            hashing = asyncio.create_task(held.sha256())
            while not digest.begun.is_set():
                await asyncio.sleep(0.001)
            other = asyncio.get_running_loop().run_in_executor(None, lambda: len(digest.pieces))
            digest.gate.set()
            before = await other
            await hashing
        return before

    assert asyncio.run(main()) == 1
    assert digest.pieces == [PIECE] * 9
