"""Ctrl-C while ``model-loaderd`` begins or has ended: it is gone at once, without a traceback."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS

AT_AN_IMPORT = """
import os, signal, sys
class Finder:
    left = int(sys.argv.pop())
    def find_spec(self, name, *_):
        self.left -= 1
        if not self.left:
            os.write(1, name.encode())
            os.kill(os.getpid(), signal.SIGINT)
from loader_service.broker.daemon import main
sys.meta_path.insert(0, Finder())
sys.stderr = sys.stdout  # what the zygote says when its broker is gone is not looked at
sys.exit(main(sys.argv[1:]))
"""
"""The daemon, which interrupts itself at one of its imports, and names that."""
AT_A_TERMINAL = """
import os, signal, sys, time
from pathlib import Path
from tests.support.processes import children
def takes_or_holds_back(pid):
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    masks = [int(line[1], 16) for line in lines if line[0] in ("SigCgt:", "SigBlk:")]
    return any(mask >> signal.SIGINT - 1 & 1 for mask in masks)
class Finder:
    def find_spec(self, name, *_):
        if name == "grpc":
            sys.meta_path.remove(self)
            (zygote,) = children()
            while not takes_or_holds_back(zygote) and os.getsid(zygote) != zygote:
                time.sleep(0.01)
            os.killpg(0, signal.SIGINT)
from loader_service.broker.daemon import main
sys.meta_path.insert(0, Finder())
sys.exit(main(sys.argv[1:]))
"""
"""The daemon, which interrupts its whole group when its zygote is on its way."""
AT_THE_END = """
import atexit, os, signal, sys
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
from loader_service.broker.daemon import main
from loader_service.broker.life import Life
Life.ready = lambda self: self.over.set()
sys.exit(main(sys.argv[1:]))
"""
"""The daemon, which ends when it is ready, and is interrupted after that."""


def daemon(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program that becomes the daemon to its end."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
        cwd=REPOSITORY,
        start_new_session=True,
    )


def interrupted_at(number: int, folder: Path) -> str:
    """Interrupt the daemon at its import of that number; returns the name, and all that it said."""
    done = daemon(AT_AN_IMPORT, "--directory", folder / str(number), number)
    assert done.returncode == -signal.SIGINT
    return done.stdout


def test_ctrl_c_is_quiet_at_the_first_import(short_folder: Path) -> None:
    assert interrupted_at(1, short_folder) == "loader_service.broker.daemon_command"


@pytest.mark.slow
def test_ctrl_c_is_quiet_at_any_import(short_folder: Path) -> None:
    said = [interrupted_at(number, short_folder) for number in range(2, 302, 20)]
    assert all(re.fullmatch(r"[\w.]+", name) for name in said), said
    assert len(set(said)) == len(said)
    # The last of them comes when the zygote is on its way, and the broker is imported.
    code = f"import loader_service.broker.daemon_command, sys; print({said[-1]!r} in sys.modules)"
    assert daemon(code).stdout == "False\n", said


def test_ctrl_c_at_a_terminal_is_not_the_zygotes(short_folder: Path) -> None:
    done = daemon(AT_A_TERMINAL, "--directory", short_folder / "service")
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" not in done.stderr


def test_ctrl_c_is_quiet_when_the_service_has_ended(short_folder: Path) -> None:
    done = daemon(AT_THE_END, "--directory", short_folder / "service", "--log-level", "error")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
