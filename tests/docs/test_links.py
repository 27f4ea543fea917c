"""What the documents point to is there, and they point to nothing of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import anchors, blocks, documents, links, name_of
from tests.shared_models import REPOSITORY

NAMED_FILE = re.compile(
    r"`((?:client|loader_service|proto|tests|docs|examples|benchmarks)/[\w./*-]+)`"
)
MACHINE_PATHS = re.compile(r"(?<![\w.$\"}])/(?:root|work|home)/|/tmp/\w|file://")
LANGUAGES = {"python", "output", "console", "text", "sh", "hex", "toml", "ini", "json"}


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_links_between_documents_resolve(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        other = (document.parent / path).resolve() if path else document
        assert other.exists(), f"{target} is not there"
        assert other.is_relative_to(REPOSITORY), f"{target} leads out of the repository"
        if anchor:
            assert anchor in anchors(other.read_text(encoding="utf-8")), f"no heading for {target}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_named_files_exist(document: Path) -> None:
    for name in NAMED_FILE.findall(document.read_text(encoding="utf-8")):
        assert list(REPOSITORY.glob(name)), f"there is no {name}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_named_targets_of_make_exist(document: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", document.read_text("utf-8"), re.M))
    assert {first or second for first, second in named} <= targets


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_no_path_of_one_machine_is_named(document: Path) -> None:
    found = MACHINE_PATHS.search(document.read_text(encoding="utf-8"))
    assert not found, found


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_block_says_what_it_is(document: Path) -> None:
    """A block of a language that no test runs would be an untested example."""
    text = document.read_text(encoding="utf-8")
    kinds = {block.language for block in blocks(text)}
    unnamed = {""} if "examples" in document.parts else set()
    assert kinds <= LANGUAGES | unnamed


def test_every_document_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in seen or document.suffix != ".md":
            continue
        seen.add(document)
        for target in links(document.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", target):
                waiting.append((document.parent / path).resolve())
    assert set((REPOSITORY / "docs").glob("*.md")) <= seen
