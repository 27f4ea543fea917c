"""Calls to the service that a signal breaks off: withdrawn, and never half done."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from model_loader._blocking_control import BlockingControl
from model_loader._uninterrupted import detached, uninterrupted
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.client.alarms import Interrupted, alarms

HANG_SECONDS = 60.0


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise Interrupted in the main thread after so many seconds."""
    with alarms() as set_alarm:
        yield set_alarm


def test_function_runs_outside_the_main_thread() -> None:
    threads = [uninterrupted(threading.get_ident, lambda: None) for _ in range(2)]
    assert threading.get_ident() not in threads
    inner: list[int] = []
    outer = threading.Thread(
        target=lambda: inner.append(uninterrupted(threading.get_ident, lambda: None))
    )
    outer.start()
    outer.join()
    assert inner == [outer.ident]


def test_errors_come_out() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        uninterrupted(fail, lambda: None)
    detached(fail)  # nobody is told


def test_interruption_withdraws(alarm: Callable[[float], None]) -> None:
    gate, withdrawn = threading.Event(), threading.Event()
    alarm(0.1)
    with pytest.raises(Interrupted):
        uninterrupted(lambda: gate.wait(10), withdrawn.set)
    assert withdrawn.wait(5)
    assert not gate.is_set()
    gate.set()


class Late:
    """A call whose reply comes although it was cancelled."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self.cancelled = False

    def result(self) -> bytes:
        """Give the reply after a while."""
        time.sleep(0.3)
        return self._reply

    def cancel(self) -> None:
        """Come too late."""
        self.cancelled = True


def test_reply_that_comes_after_the_interruption_is_not_forgotten(
    alarm: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    control = BlockingControl()
    late = Late(pb.LoadReply(model_id="orphan").SerializeToString())
    monkeypatch.setattr(control, "_start", lambda *_: late)
    replies: list[Any] = []
    alarm(0.1)
    with pytest.raises(Interrupted):
        control.ask("Load", b"", None, replies.append)
    ends = time.monotonic() + 5
    while not replies and time.monotonic() < ends:
        time.sleep(0.01)
    assert late.cancelled
    assert [reply.model_id for reply in replies] == ["orphan"]


FORKING = """
import os, time
from model_loader import _uninterrupted
from model_loader._uninterrupted import detached, uninterrupted

ended = []

def call():
    time.sleep(0.2)
    ended.append(time.monotonic())

detached(call)
while not (_uninterrupted._under_way or ended):
    time.sleep(0.001)
pid = os.fork()
if pid == 0:
    os._exit(0 if _uninterrupted._under_way == 0 else 1)
forked = time.monotonic()
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert status == 0, status
assert ended and ended[0] <= forked
assert uninterrupted(lambda: 5, lambda: None) == 5
"""


def test_fork_waits_for_calls_that_are_under_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
