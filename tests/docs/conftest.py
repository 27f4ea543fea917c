"""Where the documentation is run: a folder like a fresh clone, an empty home, nothing inherited."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared_models import REPOSITORY

CLONED = ("examples", "docs", "README.md")
"""What the commands of the documentation mention by path."""


@pytest.fixture
def clone(short_folder: Path) -> Iterator[Path]:
    """Give a folder that looks like a fresh clone, for programs and commands to run in."""
    folder = short_folder / "clone"
    for name in ("clone", "home", "run", "tmp"):
        (short_folder / name).mkdir(mode=0o700)
    for name in CLONED:
        (folder / name).symlink_to(REPOSITORY / name)
    yield folder
    # Whatever ran has ended, so nothing may be left where sockets and temporary files live.
    for name in ("run", "tmp"):
        assert not list((short_folder / name).iterdir()), f"left behind in {name}"


@pytest.fixture
def reader(clone: Path) -> dict[str, str]:
    """Give the environment of a reader who has just installed the project."""
    scripts = Path(sys.executable).parent
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return kept | {
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(clone.parent / "home"),
        "TMPDIR": str(clone.parent / "tmp"),
        "XDG_RUNTIME_DIR": str(clone.parent / "run"),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "COLUMNS": "100",
    }
