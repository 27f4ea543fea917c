"""Every command of a document's console blocks works and prints what the document shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import Block, blocks, documents, name_of
from tests.docs.run_console import commands, matches, run
from tests.shared_models import REPOSITORY

WITH_COMMANDS = [
    document
    for document in documents()
    if any(block.language == "console" for block in blocks(document.read_text(encoding="utf-8")))
]
SLOW = {REPOSITORY / "docs" / name for name in ("command-line.md", "network.md", "operations.md")}
"""They show many commands, or start services."""


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            document, id=name_of(document), marks=pytest.mark.slow if document in SLOW else ()
        )
        for document in WITH_COMMANDS
    ],
)
def test_the_commands_of_a_document_work(
    document: Path, clone: Path, reader: dict[str, str]
) -> None:
    found = [
        block
        for block in blocks(document.read_text(encoding="utf-8"))
        if block.language == "console"
    ]
    for command, status, printed in run(found, clone, reader):
        where = f"{name_of(document)}:{command.line}: {command.text}"
        assert status == 0, f"{where}\nended with {status}:\n{printed}"
        if command.output is not None:
            assert matches(command.output, printed), (
                f"{where}\nshows\n{command.output}\nbut this is printed:\n{printed}"
            )


def test_commands_are_told_from_their_output() -> None:
    block = Block("console", "$ one\n$ two \\\n>   more\nanswer\n...\n", 5)
    assert [(found.text, found.line, found.output) for found in commands(block)] == [
        ("one", 5, None),
        ("two \\\n  more", 6, "answer\n..."),
    ]


def test_a_failing_command_shows_its_status(clone: Path, reader: dict[str, str]) -> None:
    block = Block("console", "$ export WORD=kept\n$ echo $WORD\n$ false\n$ sleep 60 &\n", 1)
    assert [(status, text.strip()) for _, status, text in run([block], clone, reader)] == [
        (0, ""),
        (0, "kept"),
        (1, ""),
        (0, ""),
    ]


@pytest.mark.parametrize(
    ("promised", "found", "same"),
    [
        ("a  b", "a b\n\n", True),
        ("a ... c", "a b c", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nd", True),
        ("a\n...", "a", True),
        ("a", "a\nb", False),
        ("a\n...\nd", "a\nb", False),
        ("a.c", "abc", False),
    ],
)
def test_output_is_compared_loosely(promised: str, found: str, same: bool) -> None:
    assert matches(promised, found) is same
