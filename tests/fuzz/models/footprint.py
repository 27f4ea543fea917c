"""What a service occupies while nothing is under way: processes, descriptors, cgroups, memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from loader_service.broker.descriptors import MOST_KEPT
from loader_service.sandbox.cgroup_mounts import own_cgroups
from tests.support.processes import children

QUIET_SECONDS = 45.0
"""How long a service may take to come to rest: longer than a process waits there for a load."""

STILL_SECONDS = 1.5
"""Longer than a look of the broker at its workers takes to come again."""


class Footprint(NamedTuple):
    """Counts of what a broker holds."""

    processes: int
    """The broker's children, zombies too; the zygotes' too."""
    descriptors: int
    """Open in the broker, apart from the models that it keeps."""
    cgroups: int
    """Below the broker's own, the broker's tree included."""
    kept: int
    """Models that the broker keeps, each a descriptor of sealed memory; their number is bounded."""
    resident: int
    """KiB of the broker's memory: a fact, not a leak by itself."""


def footprint(broker: int) -> Footprint:
    """Count what the broker with that process id occupies now."""
    direct = children(broker)
    open_files = _open_files(broker)
    kept = sum(name.startswith("/memfd:") for name in open_files)
    below = [pid for child in direct for pid in children(child)]
    return Footprint(
        len(direct) + len(below),
        len(open_files) - kept,
        len(cgroup_folders(broker)),
        kept,
        _resident(broker),
    )


def settled(broker: int) -> Footprint:
    """Wait until the broker occupies the same for `STILL_SECONDS`; returns that."""
    deadline = time.monotonic() + QUIET_SECONDS
    last, since = footprint(broker), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.1)
        now = footprint(broker)
        if now[:3] != last[:3]:
            last, since = now, time.monotonic()
    return footprint(broker)


def at_rest(broker: int, most: Footprint) -> Footprint:
    """Wait until the broker occupies no more than `most`; returns what it occupies then, or at the
    end of `QUIET_SECONDS`.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        now = footprint(broker)
        if not leaks(most, now) or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def leaks(before: Footprint, after: Footprint) -> list[str]:
    """Say what there is more of after than before."""
    found = [
        f"{getattr(after, name)} {name} at the end, {getattr(before, name)} at the beginning"
        for name in ("processes", "descriptors", "cgroups")
        if getattr(after, name) > getattr(before, name)
    ]
    if after.kept > MOST_KEPT:
        found.append(f"{after.kept} models kept, more than {MOST_KEPT}")
    return found


def cgroup_folders(broker: int) -> list[Path]:
    """Return the folders of that broker's cgroup trees."""
    own = own_cgroups()
    parents = {*own.version_1.values(), *([own.version_2] if own.version_2 else [])}
    found = []
    for parent in parents:
        for tree in parent.glob(f"model-loader-{broker}-*"):
            # What goes while it is looked at is passed over.
            found += [Path(folder) for folder, _, _ in os.walk(tree)]
    return found


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:
            continue  # closed in between
    return found


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
