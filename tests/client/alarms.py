"""Interruptions on order: a signal whose handler raises in the main thread, as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

REPEATED_SECONDS = 0.01


class Interrupted(BaseException):
    """What the signal handler raises, as Ctrl-C raises KeyboardInterrupt."""


class Alarm:
    """A timer whose signal raises Interrupted in the main thread, once each time that it is set."""

    def __init__(self) -> None:
        self._is_set = False

    def __call__(self, seconds: float) -> None:
        """Interrupt after so many seconds; not any more after 0."""
        self._is_set = bool(seconds)
        # Again and again: a signal that comes just before a wait begins does not end the wait.
        signal.setitimer(signal.ITIMER_REAL, seconds, REPEATED_SECONDS if seconds else 0)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if self._is_set:
            self(0)
            raise Interrupted


@contextmanager
def alarms() -> Iterator[Callable[[float], None]]:
    """Give what has Interrupted raised after so many seconds, once; not any more after 0."""
    alarm = Alarm()
    usual = signal.signal(signal.SIGALRM, alarm.interrupt)
    try:
        yield alarm
    finally:
        alarm(0)
        signal.signal(signal.SIGALRM, usual)


@contextmanager
def interrupted_when(ready: Callable[[], object]) -> Iterator[None]:
    """Interrupt what is done within when `ready`, called in another thread, has returned."""

    def wait() -> None:
        ready()
        set_alarm(REPEATED_SECONDS)

    with alarms() as set_alarm:
        waiting = threading.Thread(target=wait)
        waiting.start()
        with pytest.raises(Interrupted):
            yield
        waiting.join()
