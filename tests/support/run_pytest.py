"""Run pytest in a private environment and count what it leaves behind.

    python -m tests.support.run_pytest [PYTEST ARGUMENT ...]

The run gets a temp folder and a runtime folder of its own, with paths short enough for Unix
sockets. When it has ended, no process that it started may be alive (orphans come to this process,
their subreaper), neither folder may hold anything, and no broker that ended may have left its
cgroups: else the run has failed, whatever pytest said.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.cgroup_trees import orphaned_trees
from tests.support.processes import (
    become_subreaper,
    children,
    describe,
    kill_all,
    reap_ended,
    wait_until_empty,
)

END_SECONDS = 10.0
"""How long processes and cgroups may take to go after pytest did: a hang bound, not a measure."""
NO_TESTS = 5
"""Pytest's exit status when it selected no test."""


def private_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with temp and runtime folders below `folder`.

    Nobody else can list them; tests that root runs as another user can pass through them.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    folder.chmod(mode)
    changed = dict(environment)
    for name, place in (("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run")):
        (folder / place).mkdir()
        (folder / place).chmod(mode)
        changed[name] = str(folder / place)
    changed.pop("MODEL_LOADER_ADDRESS", None)
    return changed


def left_over(folder: Path) -> list[str]:
    """Return what lies in the temp and runtime folders."""
    return sorted(
        str(path.relative_to(folder))
        for place in ("tmp", "run")
        for path in (folder / place).iterdir()
    )


def wait_reaping(pid: int) -> int:
    """Wait for a child and reap orphans meanwhile, as init would; returns the child's status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the child's business
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def run(arguments: Sequence[str]) -> int:
    """Run pytest; returns its exit status, or 1 when something was left behind."""
    become_subreaper()
    # A shell starts what runs in the background with Ctrl-C ignored; the tests of it need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trees_before = orphaned_trees()
    folder = Path(tempfile.mkdtemp(prefix="mlt-", dir="/tmp"))
    try:
        environment = private_environment(folder, os.environ)
        command = [sys.executable, "-m", "pytest", f"--basetemp={folder / 't'}", *arguments]
        code = wait_reaping(subprocess.Popen(command, env=environment).pid)

        def orphans() -> list[int]:
            reap_ended()
            return children()

        faults = []
        if left := wait_until_empty(orphans, END_SECONDS):
            faults.append(f"processes left behind by the tests: {describe(left)}")
            kill_all(left)
        if files := left_over(folder):
            faults.append(f"files left behind by the tests: {', '.join(files)}")
        # Those of a broker that another run has killed are swept by that run's next broker.
        if trees := wait_until_empty(
            lambda: sorted(map(str, orphaned_trees() - trees_before)), END_SECONDS
        ):
            faults.append(f"cgroups left behind by the tests: {', '.join(trees)}")
        for fault in faults:
            print(fault, file=sys.stderr, flush=True)
        return code or (1 if faults else 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
