"""What this host can do: facts for the test report's head, found by trying."""

from __future__ import annotations

import ctypes
import os
import signal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CLONE_NEWUSER = 0x10000000
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


def user_namespaces_usable() -> bool:
    """Whether a process of this uid may make a user namespace and map itself into it."""
    pid = os.fork()
    if pid == 0:
        try:
            uid, gid = os.getuid(), os.getgid()
            libc = ctypes.CDLL(None, use_errno=True)
            made = libc.unshare(CLONE_NEWUSER) == 0
            if made:
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
                Path("/proc/self/gid_map").write_text(f"0 {gid} 1\n")
            os._exit(0 if made else 1)
        except OSError:
            os._exit(1)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def installed_runtimes() -> list[str]:
    """Return the model runtimes that are installed, with versions, without importing them."""
    found = []
    for name in RUNTIMES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
