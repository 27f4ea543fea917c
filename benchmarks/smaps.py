"""Memory of processes as the kernel counts it (/proc/PID/smaps_rollup)."""

from __future__ import annotations

import time
from pathlib import Path

KIBIBYTE = 1024
ENDING_SECONDS = 10
"""Within which a process that has given up its memory is seen to have ended."""


def rollup(pid: int) -> dict[str, int] | None:
    """The fields of a process in bytes; None where only root may look, or the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    return {line.split(":")[0]: int(line.split()[1]) * KIBIBYTE for line in lines}


def private_bytes(pid: int) -> int | None:
    """Memory that only this process has."""
    fields = rollup(pid)
    if fields is None:
        return None
    return sum(size for name, size in fields.items() if name.startswith("Private"))


def tree_share_bytes(root: int) -> int | None:
    """A process and all its descendants: shared pages are counted once in all (PSS).

    None where one of them may not be looked at.
    """
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        # The name, in brackets, may hold anything.
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    tree = {root}
    while grown := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    total = 0
    for pid in tree:
        fields = rollup(pid)
        if fields is not None:
            total += fields["Pss"]
        elif not _is_memory_gone(pid):
            return None
    return total


def _is_memory_gone(pid: int) -> bool:
    """Whether a process has ended, or is about to: a worker is born of one that ends at once."""
    ends = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < ends:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        state, *fields = text.rpartition(")")[2].split()
        if state in "ZX":
            return True
        resident_pages = int(fields[20])
        if resident_pages:
            return False
        time.sleep(0.01)
    return False
