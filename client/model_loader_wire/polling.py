"""Whether to look for the other side's bytes for a moment before sleeping until they come.

To sleep and be woken costs more than a small call itself: tens of microseconds, more on a virtual
machine. Who looks instead takes a processor meanwhile. So each side looks only briefly, and only
while the looks succeed: after one in vain it leaves out the next ones, twice as many each time. A
side that waits for long computations, or whose machine is busy, soon looks hardly ever.
"""

from __future__ import annotations

import os

LONGEST_NS = 40_000
"""How long one look lasts at most, in nanoseconds; 0 turns looking off."""
LONGEST_PAUSE = 512
"""How many waits are slept through, at most, between two looks that were in vain."""


class Polling:
    """Decides for one side of one channel."""

    __slots__ = ("_pause", "_skip")

    def __init__(self) -> None:
        self._pause = 1
        self._skip = 0 if LONGEST_NS and _processors() > 1 else -1

    def begins(self) -> bool:
        """Whether to look this time."""
        if self._skip:
            if self._skip > 0:
                self._skip -= 1
            return False
        return True

    def ended(self, came: bool) -> None:
        """Note whether a look was worth it."""
        if came:
            self._pause = 1
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._skip = self._pause


def _processors() -> int:
    """How many processors this thread may use."""
    try:
        return len(os.sched_getaffinity(0))
    except OSError:
        return 1
