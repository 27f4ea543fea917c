"""Signals are answered, however many come while the loop is late."""

from __future__ import annotations

import subprocess
import sys

from tests.shared_models import REPOSITORY

PROGRAM = """
import asyncio, os, signal
from loader_service.broker.signal_calls import call_at_signal

async def main():
    calls, ended = [], asyncio.Event()
    call_at_signal(signal.SIGCHLD, lambda: calls.append("child"))
    call_at_signal(signal.SIGTERM, ended.set)
    for _ in range(5000):  # without giving the loop a turn
        os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(ended.wait(), 60)
    first = len(calls)
    os.kill(os.getpid(), signal.SIGCHLD)
    while len(calls) == first:
        await asyncio.sleep(0.01)
    print(first, len(calls))

asyncio.run(main())
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_signal_is_lost_in_a_flood_of_others() -> None:
    done = run(PROGRAM)
    assert (done.stdout, done.stderr) == ("1 2\nTrue\n", "")


def test_asyncio_alone_would_lose_it() -> None:
    """What the module is for: where this fails one day, it is not needed any more."""
    plain = PROGRAM.replace(
        "from loader_service.broker.signal_calls import call_at_signal",
        "call_at_signal = lambda *how: asyncio.get_running_loop().add_signal_handler(*how)",
    ).replace("ended.wait(), 60", "ended.wait(), 1")
    done = run(plain)
    assert "Exception ignored when trying to write to the signal wakeup fd" in done.stderr
    assert "TimeoutError" in done.stderr
