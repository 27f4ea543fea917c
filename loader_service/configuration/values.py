"""Values that were given for settings, with their places, and the mistakes among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loader_service.configuration.kinds import Kind
from loader_service.configuration.mistakes import Keys, Mistake, Place


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was read, and where it was given."""

    value: Any
    place: Place


@dataclass(slots=True)
class Values:
    """What one source gives, or several together."""

    given: dict[Keys, Given] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    policies: list[Place] = field(default_factory=list)
    """Where each policy begins."""

    def read(self, keys: Keys, kind: Kind, value: object, place: Place, *, text: bool) -> None:
        """Take a value, as a text or as TOML has it; one that is none becomes a mistake."""
        try:
            taken = kind.read_text(value) if text and isinstance(value, str) else kind.read(value)
        except ValueError as error:
            self.wrong(place, str(error))
        else:
            self.given[keys] = Given(taken, place)

    def wrong(self, place: Place, reason: str) -> None:
        """Note a mistake."""
        self.mistakes.append(Mistake(place, reason))

    def within(self, *keys: str | int) -> dict[str, Any]:
        """Return the values that are given in a table, by the names there."""
        return {
            str(name[-1]): given.value for name, given in self.given.items() if name[:-1] == keys
        }


def merged(sources: Iterable[Values]) -> Values:
    """Put sources together: a later one overrides an earlier one; every mistake stays."""
    together = Values()
    for source in sources:
        together.given |= source.given
        together.mistakes += source.mistakes
        together.policies += source.policies
    return together


def in_order(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Return each mistake once, those of a file by their lines."""
    return sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.place.line or 0)
