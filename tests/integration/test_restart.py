"""An upgrade by restart under load: programs that come back get right answers, or are told."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_loader as ml
from tests.integration.returning_caller import PLAIN
from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS

PROGRAMS = [(face, road) for face in ("blocking", "asynchronous") for road in ("direct", "relayed")]
RESTARTS = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)
REPORTED = {"NetworkError", "InvalidStateError"}
"""The errors by which a call learns that its service has ended, or its model with it."""


class Restarted:
    """A daemon that is started again and again at the same place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = self._started()

    def restart(self, by: signal.Signals) -> None:
        """End it and start another one."""
        self._process.send_signal(by)
        self._process.wait(HANG_SECONDS)
        self._process = self._started()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "loader_service.broker.daemon"),
                *(f"--directory={self.directory}", "--drain-seconds=5"),
            ],
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        ends = time.monotonic() + HANG_SECONDS
        while True:
            try:
                ml.connect(self.directory).close()
            except ml.NetworkError:
                assert process.poll() is None
                assert time.monotonic() < ends
                time.sleep(0.05)
            else:
                return process


@pytest.fixture
def daemon(short_folder: Path) -> Iterator[Restarted]:
    """A daemon in a folder of its own."""
    daemon = Restarted(short_folder / "service")
    yield daemon
    daemon.close()


def line_of(program: subprocess.Popen[str]) -> str:
    """Return the next line that a program writes, within the time of a hang."""
    assert program.stdout is not None
    ready, _, _ = select.select([program.stdout], [], [], 2 * HANG_SECONDS)
    assert ready, f"{program.args!r} hangs"
    return program.stdout.readline()


@pytest.mark.slow
def test_restarts_under_load_lose_no_call_unreported(daemon: Restarted) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.returning_caller", daemon.directory, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )
        for words in PROGRAMS
    ]
    try:
        for by in (None, *RESTARTS):
            if by is not None:
                daemon.restart(by)
            for program in programs:
                assert program.stdin is not None
                program.stdin.write("\n")
                program.stdin.flush()
            for program in programs:
                assert line_of(program) == "answered\n"
        for program, words in zip(programs, PROGRAMS, strict=True):
            assert program.stdin is not None
            program.stdin.close()
            counts = json.loads(line_of(program))
            assert program.wait(HANG_SECONDS) == 0
            print(words, counts)
            for number, count in enumerate(counts):
                reported = sum(count["lost"].values())
                assert count["wrong"] == 0, (words, counts)
                assert count["calls"] == count["answers"] + reported, (words, counts)
                assert set(count["lost"]) <= REPORTED, (words, counts)
                if number == PLAIN:  # no model that keeps state came back by itself
                    assert count["loads"] == 1 + len(RESTARTS), (words, counts)
                else:
                    assert count["loads"] == 1, (words, counts)
                    assert count["lost"].keys() <= {"NetworkError"}, (words, counts)
    finally:
        for program in programs:
            program.kill()
            program.wait()
            for pipe in (program.stdin, program.stdout):
                assert pipe is not None
                pipe.close()
