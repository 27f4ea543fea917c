"""A unit file of `packaging/systemd`, read, and what its settings come to."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.shared_models import REPOSITORY

FOLDER = REPOSITORY / "packaging" / "systemd"
SERVICE = FOLDER / "model-loader.service"
ANALYZER = shutil.which("systemd-analyze")
WITHOUT_ANALYZER = "systemd-analyze is not installed here"


@dataclass(frozen=True)
class Unit:
    """The settings of a unit with its drop-ins, each with its values in order, and the comments."""

    settings: dict[str, list[str]]
    comments: str

    @classmethod
    def read(cls, *files: Path) -> Unit:
        """Read a unit file, and drop-ins on it; no setting in them may go over several lines."""
        settings: dict[str, list[str]] = {}
        comments = []
        for file in files:
            for line in file.read_text(encoding="utf-8").splitlines():
                if line.startswith("#"):
                    comments.append(line.removeprefix("#").strip())
                elif line and not line.startswith("["):
                    assert not line.endswith("\\"), line
                    name, _, value = line.partition("=")
                    settings.setdefault(name, []).append(value)
        return cls(settings, " ".join(comments))

    def last(self, name: str) -> str:
        """Return a setting's value where only one can hold: the last."""
        return self.settings[name][-1]

    def yes(self, name: str) -> bool:
        """Whether a setting that is yes or no was switched on."""
        return self.settings.get(name, ["no"])[-1] == "yes"

    def words(self, name: str) -> list[str]:
        """Return the words of a list, whose lines add up, and an empty one begins anew."""
        found: list[str] = []
        for value in self.settings.get(name, []):
            found = [*found, *value.split()] if value else []
        return found

    def system_calls(self) -> frozenset[str]:
        """Return what SystemCallFilter lets through; asks systemd-analyze for its groups."""
        allowed: set[str] = set()
        for value in self.settings["SystemCallFilter"]:
            words = value.removeprefix("~").split()
            meant = {call for word in words for call in members(word)}
            allowed = allowed - meant if value.startswith("~") else allowed | meant
        return frozenset(allowed | members("@default"))


@cache
def members(word: str) -> frozenset[str]:
    """Return the system calls of a group of systemd's, or the one that is named."""
    if not word.startswith("@"):
        return frozenset({word})
    assert ANALYZER is not None
    listed = subprocess.run(
        [ANALYZER, "--no-pager", "syscall-filter", word],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    words = [line.strip() for line in listed if line.startswith(" ")]
    return frozenset(
        call for inner in words if not inner.startswith("#") for call in members(inner)
    )
