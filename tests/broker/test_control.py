"""The broker's end of a control socket: files that it passes on."""

from __future__ import annotations

import os
import tempfile
from typing import IO

import pytest

from loader_service.broker.refusal import Refusal
from model_loader_wire.causes import Cause
from tests.support.fake_worker import GO, HANG_SECONDS, READY, fake_worker, run

SWALLOW = READY + "\nwhile True: read(control, 1 << 16)"


class Bytes:
    """What a worker is sent, as far as its handle looks at it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.fileno = file.fileno
        self.size = size


@pytest.mark.parametrize("fault", ["closed", "too short"])
def test_a_file_that_cannot_be_read_ends_its_worker_at_once(fault: str) -> None:
    async def test() -> None:
        with tempfile.TemporaryFile() as file:
            file.write(os.urandom(1000))
            file.flush()
            content = Bytes(file, 1000)
            if fault == "closed":
                content.fileno = lambda: -1
            async with fake_worker(SWALLOW) as worker:
                await worker.begin(GO)
                with pytest.raises(Refusal, match="cannot be sent") as caught:
                    await worker.send_held(content, 0, 2000)  # type: ignore[arg-type]
                assert caught.value.failure.cause is Cause.INTERNAL
                assert worker.lost is not None

    run(test)


def test_a_worker_that_is_gone_is_told_as_that() -> None:
    async def test() -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 20)
            async with fake_worker(READY + "\nos._exit(7)") as worker:
                await worker.begin(GO)
                await worker.wait(HANG_SECONDS)
                with pytest.raises(Refusal) as caught:
                    await worker.send_held(Bytes(file, 1 << 20), 0, 1 << 20)  # type: ignore[arg-type]
                assert caught.value.failure.cause is Cause.CRASHED

    run(test)
