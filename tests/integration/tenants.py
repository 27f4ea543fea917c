"""Users of a shared daemon, each a process of their own; see ``tenant`` for what they can do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.shared_models import REPOSITORY
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS


class Tenant:
    """A user's program, spoken to line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.said = self._answer()

    def do(self, line: str) -> Any:
        """Have it do something; returns what it says of that."""
        self.begin(line)
        return self.done()

    def begin(self, line: str) -> None:
        """Have it do something; `done` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def done(self) -> Any:
        """Wait for what it says of that."""
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program of a user has ended: {self._process.poll()}"
        return json.loads(line)


@contextmanager
def tenant(daemon: Daemon, uid: int, *words: str) -> Iterator[Tenant]:
    """Run a user's program."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.integration.tenant"),
            *(str(daemon.directory), str(uid), *words),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        try:
            yield Tenant(process)
            process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()
