"""A peer's Python environment: made when it is first asked for, below the repository.

Git ignores it, and nothing of the project is installed there.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from model_loader_cli.bench.processes import ArmFailed

STAMP = "installed"
"""What was installed, a requirement a line: written when all of it was."""
LOG = "install.log"
SECONDS = 1800.0
"""An installation that takes longer hangs: it fetches some hundred megabytes."""
LAST_LINES = 3


class Environment:
    """A folder with a Python and some packages."""

    def __init__(self, folder: Path, requirements: Sequence[str]) -> None:
        self._folder = folder
        self._requirements = tuple(requirements)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self._folder / "bin" / "python"

    def is_installed(self) -> bool:
        """Whether all of these requirements were installed."""
        stamp = self._folder / STAMP
        return stamp.exists() and tuple(stamp.read_text().splitlines()) == self._requirements

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """The versions of those of the packages that are installed."""
        folders = [str(folder) for folder in self._folder.glob("lib/python*/site-packages")]
        return {
            package: found.version
            for package in packages
            for found in distributions(name=package, path=folders)
        }

    def install(self) -> None:
        """Make it anew unless it is there; raises ArmFailed with what pip said last."""
        if self.is_installed():
            return
        # Pip is that of the Python that runs: it need not be copied.
        venv.create(self._folder, clear=True, with_pip=False)
        log = self._folder / LOG
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        with log.open("wb") as file:
            try:
                status = subprocess.run(
                    [*pip, "--python", str(self.python), "install", *self._requirements],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise ArmFailed(f"not installed within {SECONDS:g} s; see {log}") from None
        if status:
            words = log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
            raise ArmFailed("\n".join([*words, f"(all of it: {log})"]))
        (self._folder / STAMP).write_text("\n".join(self._requirements) + "\n")
