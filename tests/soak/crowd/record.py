"""What each program of the crowd has done, in memory that it shares with whoever watches it.

A program that is killed can say nothing more; what it has written here stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MOST_LIVES = 1 << 16
COUNTS = (
    *("loads_begun", "loads", "calls_begun", "calls"),
    *("wrong", "faults", "losses", "closes", "relayed", "connected", "ended"),
)
"""Of one life. What was begun is counted before, what was done after; `losses` are models of which
the program was told that they are lost."""
Life = Any
"""A record with a field for each of them."""


class Record:
    """The lives of all programs, by number; and whether they shall come to their end."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """Map a file; `make` makes it, empty."""
        kind = np.dtype([(name, np.uint64) for name in COUNTS])
        # The last one is no life.
        self.lives: Any = np.memmap(path, kind, "w+" if make else "r+", shape=(MOST_LIVES + 1,))

    @property
    def stopping(self) -> bool:
        """Whether every program shall end."""
        return bool(self.lives[MOST_LIVES]["ended"])

    def stop(self) -> None:
        """Have every program end."""
        self.lives[MOST_LIVES]["ended"] = 1

    def total(self, name: str) -> int:
        """Add a count of all lives up."""
        return int(self.lives[:MOST_LIVES][name].sum())
