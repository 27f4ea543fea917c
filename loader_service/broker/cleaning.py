"""Reaping what the kernel hands to the broker as subreaper and nobody waits for."""

from __future__ import annotations

import os
from collections.abc import Callable


def reap_strangers(is_known: Callable[[int], bool]) -> None:
    """Reap each dead child that `is_known` does not claim; those have owners who wait."""
    while True:
        try:
            result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if result is None or is_known(result.si_pid):
            # waitid shows the same child again until it is reaped: the others come next time.
            return
        os.waitpid(result.si_pid, 0)
