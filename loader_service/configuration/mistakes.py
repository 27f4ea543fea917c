"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Keys = tuple[str | int, ...]
"""Where a setting is in the tables: ``("limits", "memory_bytes")``, ``("policy", 0, "users")``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was given."""

    source: str
    """A file, ``environment``, ``flag`` or ``default``."""
    line: int | None = None
    """Of the file; None where it cannot be known."""
    name: str = ""
    """How the setting is called there."""

    def __str__(self) -> str:
        """Write it as people, and editors, expect it."""
        source = self.source if self.line is None else f"{self.source}:{self.line}"
        if self.source in (ENVIRONMENT, FLAG):
            return self.name
        return f"{source}: {self.name}" if self.name else source


ENVIRONMENT, FLAG = "environment", "flag"
DEFAULT = Place("default")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong."""

    place: Place
    reason: str

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.place}: {self.reason}"


class ConfigurationError(Exception):
    """A configuration cannot be used; tells every mistake in it."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


def dotted(keys: Keys) -> str:
    """Write the name of a setting: ``limits.memory_bytes``, ``policy[1].users``.

    The first of several tables of a name is number 1, as people count.
    """
    text = ""
    for part in keys:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text
