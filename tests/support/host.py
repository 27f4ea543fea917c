"""What this host can do: facts for the test report's head, found by trying."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.shared_models import REPOSITORY

CLONE_NEWUSER = 0x10000000
REFUSED = 3
"""Status of the process that asks for a user namespace and gets none."""
RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def cgroup_kind() -> str:
    """Say which cgroup hierarchies are mounted and whether memory can be limited by them."""
    version_two = Path("/sys/fs/cgroup/cgroup.controllers")
    version_one = Path("/sys/fs/cgroup/memory")
    if version_two.exists():
        controllers = version_two.read_text().split()
        own = Path("/sys/fs/cgroup") / _own_cgroup("").lstrip("/")
        return f"v2, {_writable(own)}, memory {'on' if 'memory' in controllers else 'absent'}"
    if version_one.exists():
        own = version_one / _own_cgroup("memory").lstrip("/")
        return f"v1, memory {_writable(own if own.exists() else version_one)}"
    return "none"


def _own_cgroup(controller: str) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _writable(folder: Path) -> str:
    return "writable" if os.access(folder, os.W_OK) else "not writable"


@cache
def user_namespaces_usable() -> bool:
    """Whether a process of this uid may make a user namespace and map itself into it.

    Another process asks: this one, and a fork of it, may have threads of gRPC's.
    """
    asking = subprocess.run([sys.executable, "-m", __name__], cwd=REPOSITORY, timeout=60)
    assert asking.returncode in (0, REFUSED), asking
    return asking.returncode == 0


def _enter_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1\n")


def installed_runtimes() -> list[str]:
    """Return the model runtimes that are installed, with versions, without importing them."""
    found = []
    for name in RUNTIMES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    try:
        _enter_user_namespace()
    except OSError:
        sys.exit(REFUSED)
