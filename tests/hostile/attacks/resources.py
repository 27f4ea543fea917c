"""Taking more than one's share: memory, processor, threads, descriptors, log."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

from tests.hostile.attacks import deaths
from tests.hostile.attacks.calls import call

_taken: list[bytearray] = []


def fill_memory() -> None:
    """Take memory and write to it, without end."""
    while True:
        piece = bytearray(16 << 20)
        piece[::4096] = b"x" * len(piece[::4096])
        _taken.append(piece)


def map_memory() -> None:
    """Take memory without malloc, as code would that ignores failures, and write to it."""
    while True:
        place = call("mmap", 0, 16 << 20, 3, 0x22, -1, 0)
        if place < 0:
            call("poll", 0, 0, 10)
            continue
        ctypes.memset(place, 1, 16 << 20)


def grow_break() -> int:
    """Move the end of the heap on until the kernel says no; returns bytes gained."""
    begin = end = call("brk", 0)
    while call("brk", end + (16 << 20)) >= end + (16 << 20):
        end += 16 << 20
        ctypes.memset(end - (16 << 20), 1, 16 << 20)
    return end - begin


def start_threads(wanted: int) -> int:
    """Start threads that wait; returns how many there could be."""
    stop = threading.Event()
    started = []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    stop.set()
    for thread in started:
        thread.join()
    return len(started)


def violate_in_thread() -> None:
    """Make a forbidden call in another thread than the one that was locked down."""
    thread = threading.Thread(target=call, args=("socket", 2, 1, 0))
    thread.start()
    thread.join()


def take_descriptors() -> list[int]:
    """Try every call of the policy that could make a descriptor; returns the results."""
    return [
        call("open", "/dev/null", os.O_RDONLY),
        call("openat", -100, "/", os.O_RDONLY | os.O_DIRECTORY),
    ]


def flood_stderr(text: str, count: int) -> int:
    """Write a text to standard error many times; returns how often."""
    data = text.encode()
    for _ in range(count):
        os.write(2, data)
    return count


def flood_stderr_for_ever(text: str) -> None:
    """Write to standard error without end."""
    data = text.encode() * 100
    while True:
        os.write(2, data)


def block_signals() -> None:
    """Block and ignore all that can be, and compute for ever."""
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))
    for number in range(1, 65):
        # struct sigaction of the kernel: handler, flags, restorer, mask.
        call("rt_sigaction", number, (1).to_bytes(8, "little") + bytes(24), 0, 8)
    deaths.use_processor()
