"""Running gRPC where no signal handler can break it off.

gRPC and ``threading`` guard their state by locks taken in Python code. A handler that raises
between "taken" and "noted" leaves such a lock held for ever, and every later call on the
connection hangs. Handlers run in the main thread only: there, gRPC is used by a helper thread
while the main thread waits in C, which is interruptible and holds nothing.

The same functions keep gRPC quiet around a fork, which it survives only if no other thread is in
one of its calls just then.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

FORK_SECONDS = 1.0
"""How long a fork waits for calls of other threads to end; later ones are on their own."""
SETTLE_SECONDS = 0.005
"""gRPC's threads are still on their way out for so long after a call."""

_gate = _thread.allocate_lock()
_lock = _thread.allocate_lock()
_under_way = 0
_last_end = 0.0


def uninterrupted(function: Callable[[], Result], withdraw: Callable[[], object]) -> Result:
    """Run a function that no signal interrupts; if the wait for it is, `withdraw` is run, too.

    Neither runs in the main thread.
    """
    if threading.get_ident() == threading.main_thread().ident is not None:
        outcomes: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                outcomes.put((_counted(function), None))
            except BaseException as error:
                outcomes.put((None, error))

        try:
            _thread.start_new_thread(work, ())
            result, error = outcomes.get()
        except BaseException:
            detached(withdraw)
            raise
        if error is not None:
            try:
                raise error
            finally:
                error = None  # else error and frame would hold each other, and the call
        answer: Result = result
        return answer
    return _counted(function)


def detached(function: Callable[[], object]) -> None:
    """Run a function in a thread of its own; nobody waits for it, and its errors are dropped."""
    _thread.start_new_thread(_quietly, (lambda: _counted(function),))


def _counted(function: Callable[[], Result]) -> Result:
    global _under_way, _last_end
    with _gate, _lock:
        _under_way += 1
    try:
        return function()
    finally:
        with _lock:
            _under_way -= 1
            _last_end = time.monotonic()


def _quietly(function: Callable[[], object]) -> None:
    with suppress(Exception):
        function()


def _before_fork() -> None:
    ends = time.monotonic() + FORK_SECONDS
    _gate.acquire()  # until the fork is over no call begins
    while _under_way and time.monotonic() < ends:
        time.sleep(0.001)
    time.sleep(min(SETTLE_SECONDS, max(0.0, _last_end + SETTLE_SECONDS - time.monotonic())))


def _after_fork_in_parent() -> None:
    with suppress(RuntimeError):  # not held, if a signal handler broke _before_fork off
        _gate.release()


def _after_fork_in_child() -> None:
    global _gate, _lock, _under_way
    _gate = _thread.allocate_lock()
    _lock = _thread.allocate_lock()
    _under_way = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
