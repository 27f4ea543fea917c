"""A root directory to install into: this machine's, with every change kept apart and thrown away.

An overlay over the root file system in a mount namespace of its own. A plain chroot would not do:
the kernel lets nobody make a user namespace in one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType

from tests.shared_models import REPOSITORY

SECONDS = 300.0
"""A command that takes longer hangs."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "COLUMNS": "100",
}
NEEDED = (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix))
"""What commands in the root need of the tests, wherever the machine has it."""
# /run and /tmp are empty, as on a machine that has just started: no systemd, no bus, no service.
# An overlay shows nothing of other mounts below its root.
ENTER = """
set -e
mount -t tmpfs -o mode=755 scratch "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
for folder in proc sys dev; do mount --rbind "/$folder" "$folder"; done
mount -t tmpfs -o mode=755 scratch run
mount -t tmpfs -o mode=1777 scratch tmp
shift
for needed in "$@"; do
    if [ -z "$(ls -A ".$needed" 2> /dev/null)" ]; then
        mkdir -p ".$needed"
        mount --bind -o ro "$needed" ".$needed"
    fi
done
mkdir tmp/old
pivot_root . tmp/old
cd /
umount -l /tmp/old
rmdir /tmp/old
echo entered
cat > /dev/null
"""


class ScratchRoot:
    """The root, and commands in it; it goes with its `close`."""

    def __init__(self, folder: Path) -> None:
        """Make it, with an empty folder of the machine's as the place where to mount it."""
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation=private"),
                *("sh", "-c", ENTER, "sh", str(folder), *map(str, NEEDED)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "entered\n":
            self._holder.wait()
            raise OSError(self._holder.stderr.read().strip())

    def __enter__(self) -> ScratchRoot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; it is there until its last process has ended."""
        self._holder.communicate()

    def command(self, *words: str | Path) -> list[str]:
        """Return a command that runs another one in the root."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", *map(str, words)]

    def run(
        self,
        *words: str | Path,
        environment: Mapping[str, str] | None = None,
        status: int | None = 0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the root to its end, which must have this status; None: any."""
        done = subprocess.run(
            self.command(*words),
            cwd="/",
            env={**ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert status is None or done.returncode == status, (
            f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        return done


@cache
def why_not() -> str | None:
    """Why no such root can be made here; None where it can."""
    if os.geteuid() != 0:
        return "only root can install a package"
    try:
        with tempfile.TemporaryDirectory() as folder, ScratchRoot(Path(folder)):
            return None
    except OSError as error:
        return f"this host mounts no overlay: {error}"
