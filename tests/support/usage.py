"""What processes hold: descriptors, threads, children, memory of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from tests.support.processes import children

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process holds at a moment."""

    descriptors: int
    """None of a process whose descriptors may not be seen: 0."""
    threads: int
    children: int
    private_bytes: int
    """Resident memory that is no file's."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Look at a living process."""
        try:
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except PermissionError:  # a worker of an ordinary user
            descriptors = 0
        resident, shared = _resident_and_shared(pid)
        return cls(
            descriptors=descriptors,
            threads=len(os.listdir(f"/proc/{pid}/task")),
            children=len(children(pid)),
            private_bytes=resident - shared,
        )

    def most(self, other: Self) -> Self:
        """The larger of each."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*map(max, pairs))


def resident_bytes(pid: int) -> int:
    """How much memory a process has, files that it maps included."""
    return _resident_and_shared(pid)[0]


def _resident_and_shared(pid: int) -> tuple[int, int]:
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return resident * PAGE, shared * PAGE
