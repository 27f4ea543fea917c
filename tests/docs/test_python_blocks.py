"""Every Python block of a document runs, in order, as one program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import Block, blocks, documents, name_of

RUNNER = Path(__file__).with_name("run_python.py")
WITH_CODE = [
    document
    for document in documents()
    if any(block.language == "python" for block in blocks(document.read_text(encoding="utf-8")))
]


def run(
    name: str, given: list[Block], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run blocks as the program that a reader would make of them."""
    return subprocess.run(
        [sys.executable, "-P", str(RUNNER), name],
        input=json.dumps([[block.language, block.text, block.line] for block in given]),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("document", WITH_CODE, ids=name_of)
def test_the_python_of_a_document_runs(document: Path, clone: Path, reader: dict[str, str]) -> None:
    found = [
        block
        for block in blocks(document.read_text(encoding="utf-8"))
        if block.language in ("python", "output")
    ]
    done = run(name_of(document), found, clone, reader)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 + 1  # → 3", "gives 2"),
        ("int('x')  # raises TypeError: ...", "ValueError: invalid literal"),
        ("int('1')  # raises ValueError: ...", "raises nothing"),
        ("x = 1  # → 1", "no expression"),
        ("undefined", "NameError"),
    ],
)
def test_a_broken_promise_fails(
    text: str, complaint: str, clone: Path, reader: dict[str, str]
) -> None:
    done = run("a.md", [Block("python", text + "\n", 7)], clone, reader)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "a.md" in done.stderr


def test_kept_promises_pass(clone: Path, reader: dict[str, str]) -> None:
    given = [
        Block("python", "n = 41\nn + 1  # → 42\nint('x')  # raises ValueError: invalid ...\n", 1),
        Block("python", "print('one')\nprint('two', n)\n", 9),
        Block("output", "one\ntwo ...\n", 14),
    ]
    assert run("a.md", given, clone, reader).returncode == 0
    given[-1] = Block("output", "one\n", 14)
    assert "a.md:14" in run("a.md", given, clone, reader).stderr
