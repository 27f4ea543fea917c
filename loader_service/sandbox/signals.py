"""What signals do to a worker that is process 1 of its namespace.

The kernel does not deliver a signal with the default action to such a process, so `abort()` would
go on to an illegal instruction and end as SIGSEGV, and SIGXCPU would be lost. libc's own `_exit` as
the handler needs no Python and no second process: the signal's number becomes the exit status.
"""

from __future__ import annotations

import ctypes
import signal
from typing import Final

from loader_service.sandbox import libc

EXITING_SIGNALS: Final = (signal.SIGABRT, signal.SIGXCPU)
"""Signals whose number is the exit status of a worker: 6 after `abort()`, 24 at the CPU limit."""

_SIG_ERR: Final = ctypes.c_void_p(-1).value

_signal = libc.library.signal
_signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_signal.restype = ctypes.c_void_p

_exit_address: Final = ctypes.cast(getattr(libc.library, "_exit"), ctypes.c_void_p).value  # noqa: B009


def exit_on_signals() -> None:
    """Make each of `EXITING_SIGNALS` end this process with the signal's number as its status."""
    for number in EXITING_SIGNALS:
        if _signal(number, _exit_address) == _SIG_ERR:
            raise OSError(ctypes.get_errno(), f"signal: no handler for {number.name}")


def restore_defaults() -> None:
    """Give every signal its default action and unblock all, as a freshly executed program has.

    What has come while it was blocked is dropped. SIGPIPE stays ignored: a closed channel is an
    error of the write, not the death of the worker.
    """
    for number in signal.sigpending() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
