"""Where this process is in the mounted cgroup hierarchies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OwnCgroups:
    """The directories of this process's own cgroups."""

    version_1: Mapping[str, Path]
    """By controller name, as `memory` or `cpuacct`."""
    version_2: Path | None
    """In the unified hierarchy, when that is mounted."""


def own_cgroups() -> OwnCgroups:
    """Find them by /proc/self/cgroup and /proc/self/mountinfo, with the mounts of a container."""
    return parse(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())


def parse(cgroup: str, mountinfo: str) -> OwnCgroups:
    """The same from the texts of the two files."""
    unified: Path | None = None
    by_controller: dict[str, Path] = {}
    mounts = [line.split(" ") for line in mountinfo.splitlines()]
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        wanted = set(controllers.split(",")) - {""}
        for fields in mounts:
            separator = fields.index("-")
            kind, options = fields[separator + 1], set(fields[separator + 3].split(","))
            if kind != ("cgroup" if wanted else "cgroup2") or not wanted <= options:
                continue
            directory = _below(_unescape(fields[4]), path, _unescape(fields[3]))
            if directory is None:
                continue
            if wanted:
                by_controller.update(dict.fromkeys(wanted, directory))
            else:
                unified = directory
    return OwnCgroups(by_controller, unified)


def _below(mount_point: str, path: str, mount_root: str) -> Path | None:
    """The directory of cgroup `path`, when the part of the tree mounted there holds it."""
    relative = os.path.relpath(path, mount_root)
    if relative == ".." or relative.startswith("../") or "/.." in path:
        return None
    return Path(mount_point) / relative


def _unescape(field: str) -> str:
    """Undo the octal escapes that /proc/self/mountinfo uses for spaces and the like."""
    parts = field.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
