"""Calling something when a signal comes, however many come at a time.

asyncio has the interpreter write a byte to a socket for each, and calls by what it reads there.
When many children end while the loop is late that socket is full: signals are lost, whichever they
are, with a traceback on standard error. So here the signal's own handler asks for the call, once
until it is made, and the byte only wakes the loop.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def call_at_signal(number: signal.Signals, call: Callable[[], object]) -> None:
    """Have the running loop call; it stops doing so at its end, as with its own handlers.

    For the main thread. Signals that come before the call is made are answered by that one.
    """
    loop = asyncio.get_running_loop()
    waits = False

    def answer() -> None:
        nonlocal waits
        waits = False
        call()

    def ask(*_: object) -> None:
        nonlocal waits
        if not waits:
            waits = True
            loop.call_soon_threadsafe(answer)

    # By this the loop has bytes written, and takes the signal back when it is closed.
    loop.add_signal_handler(number, lambda: None)
    signal.signal(number, ask)
    signal.siginterrupt(number, False)
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
