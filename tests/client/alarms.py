"""Interruptions on order: a signal whose handler raises in the main thread, as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


class Interrupted(BaseException):
    """What the signal handler raises, as Ctrl-C raises KeyboardInterrupt."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _set_alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _let_handlers_run()


def _let_handlers_run() -> None:
    """Does nothing but begin: there Python calls the handler of a signal that has come."""


@contextmanager
def alarms() -> Iterator[Callable[[float], None]]:
    """Give what has Interrupted raised after so many seconds, once; not any more after 0."""
    usual = signal.signal(signal.SIGALRM, _interrupt)
    try:
        yield _set_alarm
    finally:
        _set_alarm(0)
        signal.signal(signal.SIGALRM, usual)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Interrupt what is done within; it must not have ended by then."""
    with alarms() as set_alarm:
        set_alarm(seconds)
        with pytest.raises(Interrupted):
            yield
