"""Names that a model repeats or leaves out."""

from __future__ import annotations

import pytest

from loader_service.runtime.naming import unique_names
from model_loader_wire.causes import printable
from model_loader_wire.description import NAME_LENGTH


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a:1", "a:2"]),
        (["", ""], ["input", "input:1"]),
        (["input", ""], ["input", "input:1"]),
        (["a", "a:1", "a"], ["a", "a:1", "a:2"]),
        (["a", "a", "a:1"], ["a", "a:1", "a:1:1"]),
        (["a\x1b[2J", "ö"], ["a\\x1b[2J", "ö"]),
        # Escaped they would be the same.
        (["\x07", "\\x07"], ["\\x07", "\\x07:1"]),
    ],
)
def test_names_are_made_distinct(names: list[str], expected: list[str]) -> None:
    assert unique_names(names, "input") == expected


def test_long_names_stay_within_the_description() -> None:
    names = unique_names(["\x1b" * 5000, "x" * 5000, "x" * 5000], "input")
    assert len(set(names)) == 3
    assert all(len(name) <= NAME_LENGTH for name in names)
    # What the receiver does to a name changes none of them.
    assert [printable(name, NAME_LENGTH) for name in names] == names
