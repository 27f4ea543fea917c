"""Run the tests as an unprivileged user, when they are run by root.

    python -m tests.support.as_user [PYTEST ARGUMENT ...]

Root's worker isolation differs from an ordinary user's, so tests marked ``isolation`` run as both.
The user needs no entry in the user database: a free uid is taken. Everything that it reads is a
copy (see ``readable_copy``), thrown away at the end.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.shared_models import REPOSITORY, shared_folder
from tests.support.processes import describe, kill_all, processes_of, wait_until_empty
from tests.support.readable_copy import (
    copy_environment,
    copy_interpreter,
    copy_project,
    link_tree,
    make_folder,
)
from tests.support.run_pytest import END_SECONDS, NO_TESTS

UIDS = range(61000, 61184)
"""Between the ranges that distributions and systemd give away."""
UID_VARIABLE = "MODEL_LOADER_TEST_UID"
"""Set for the tests of the second run: the uid that they must find themselves to be."""


def free_uid() -> int:
    """Return a uid that no process and no user has; raises RuntimeError if there is none."""
    named = {entry.pw_uid for entry in pwd.getpwall()}
    first = os.getpid() % len(UIDS)
    uid: int
    for uid in itertools.chain(UIDS[first:], UIDS[:first]):
        if uid not in named and not processes_of(uid):
            return uid
    raise RuntimeError(f"no uid of {UIDS} is free")


def succeeds(uid: int, command: Sequence[str]) -> bool:
    """Whether a command run as that user, in the root folder, exits with status 0."""
    try:
        done = subprocess.run(
            command,
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.defpath},
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def prepare(folder: Path, uid: int) -> tuple[Path, Path]:
    """Make the copies in `folder`; returns the project's folder and the Python to run it with."""
    project = folder / "project"
    copy_project(REPOSITORY, project)
    for place in (project, *project.rglob("*")):
        os.chown(place, uid, uid, follow_symlinks=False)
    interpreter = Path(os.path.realpath(sys.executable))
    if not succeeds(uid, [str(interpreter), "-I", "-S", "-c", "import ctypes, json, select"]):
        interpreter = copy_interpreter(folder / "python")
    return project, copy_environment(folder / "venv", interpreter, project)


def environment_for(folder: Path, uid: int, python: Path) -> dict[str, str]:
    """Return the whole environment of the second run."""
    environment = {
        "PATH": f"{python.parent}:{os.defpath}",
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        UID_VARIABLE: str(uid),
    }
    (folder / "home").mkdir(mode=0o700)
    os.chown(folder / "home", uid, uid)
    shared = shared_folder()
    if shared is not None:
        manifest = shared / "models" / "MANIFEST.json"
        read = f"open({str(manifest)!r}).close()"
        if not succeeds(uid, [str(python), "-I", "-c", read]):
            link_tree(shared / "models", folder / "shared" / "models")
            shared = folder / "shared"
        environment["MODEL_LOADER_SHARED"] = str(shared)
    return environment


def run(arguments: Sequence[str]) -> int:
    """Run pytest as an unprivileged user; returns its exit status, or 1 for left processes."""
    if os.getuid() != 0:
        print("not root: the isolation tests have run as this unprivileged user already")
        return 0
    started = time.monotonic()
    os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="mlu-", dir="/var/tmp"))
    try:
        make_folder(folder)
        uid = free_uid()
        project, python = prepare(folder, uid)
        environment = environment_for(folder, uid, python)
        seconds = time.monotonic() - started
        print(f"as uid {uid}, from a copy made in {seconds:.1f} s", flush=True)
        code = subprocess.run(
            [str(python), "-m", "tests.support.run_pytest", *arguments],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd=project,
            env=environment,
            check=False,
        ).returncode
        if left := wait_until_empty(lambda: processes_of(uid), END_SECONDS):
            print(f"processes left behind as uid {uid}: {describe(left)}", file=sys.stderr)
            kill_all(left)
            return code or 1
        return code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    status = run(sys.argv[1:])
    if status == NO_TESTS:
        print("no test was selected for the second run", file=sys.stderr)
    sys.exit(status)
