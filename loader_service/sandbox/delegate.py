"""Asking systemd for a cgroup of one's own with the right to divide it.

An ordinary user may not write to the cgroup of a login session. The user's systemd manager moves a
process into a new scope on request, and with `Delegate=yes` the scope belongs to the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

_ANSWER_SECONDS: Final = 2.0
_MOVE_SECONDS: Final = 2.0


def move_to_own_scope() -> bool:
    """Move this process into a transient scope that is delegated to it.

    Asks the user's manager, or the system's for root. Returns `False` at once where there is none,
    and after a few seconds at most when it does not answer.
    """
    manager = _manager()
    busctl = shutil.which("busctl")
    if manager is None or busctl is None:
        return False
    before = _own_cgroup()
    pid = str(os.getpid())
    try:
        subprocess.run(
            [
                *(busctl, manager, "--quiet", f"--timeout={_ANSWER_SECONDS:g}", "call"),
                *("org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
                *("org.freedesktop.systemd1.Manager", "StartTransientUnit"),
                # name, mode, properties, auxiliary units
                *("ssa(sv)a(sa(sv))", f"model-loader-{pid}.scope", "fail"),
                *("3", "Description", "s", "Model Loader service"),
                *("PIDs", "au", "1", pid, "Delegate", "b", "true", "0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER_SECONDS + 1,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    # The answer means that the job was accepted; the move follows.
    end = time.monotonic() + _MOVE_SECONDS
    while _own_cgroup() == before:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _manager() -> str | None:
    """Which manager to ask, as busctl's option; `None` where none can be there."""
    if os.geteuid() == 0:
        return "--system" if Path("/run/systemd/system").is_dir() else None
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # os.path: a folder that this user may not enter has no bus for it, and is no error.
    has_bus = runtime is not None and os.path.exists(os.path.join(runtime, "bus"))
    return "--user" if has_bus or "DBUS_SESSION_BUS_ADDRESS" in os.environ else None


def _own_cgroup() -> str:
    return Path("/proc/self/cgroup").read_text()
