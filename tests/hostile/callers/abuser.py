"""A program that abuses a service, as another user if it may be one.

    python -m tests.hostile.callers.abuser DIRECTORY UID ABUSE

Each report of the abuse is one line of JSON on stdout; for each, it waits for a line on stdin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.shared_models import REPOSITORY

UID = 54321 if os.geteuid() == 0 else os.geteuid()
"""Whom the abuser is: another user than the service's, or, without root, another program only."""


class Abuser:
    """The program, as its test sees it."""

    def __init__(self, directory: Path, abuse: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory), str(UID), abuse],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def report(self) -> dict[str, Any]:
        """Wait for the next report; the abuse goes no further meanwhile."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the abuser ended with status {self._process.wait()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def go_on(self) -> None:
        """Let it go on after a report."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def main(directory: Path, uid: int, abuse: str) -> int:
    """Abuse, and report."""
    import tests.hostile.callers.abuses as abuses

    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for report in getattr(abuses, abuse)(directory):
        print(json.dumps(report), flush=True)
        if not sys.stdin.readline():
            break
    return 0


if __name__ == "__main__":
    status = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    # gRPC's threads may be in the middle of something that will never end.
    os._exit(status)
