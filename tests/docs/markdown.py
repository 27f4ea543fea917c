"""Reading the project's Markdown: fenced blocks, headings, links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.shared_models import REPOSITORY

FENCE = re.compile(r"^( *)(```+)\s*(\w*)(?:\s+\w+)?\s*$")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is the number of its first line of content."""

    language: str
    text: str
    line: int


def documents() -> list[Path]:
    """Return every document of the repository that a reader is meant to read."""
    found = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    found += sorted((REPOSITORY / "proto").glob("*.md"))
    return found + sorted((REPOSITORY / "examples").glob("*/README.md"))


def name_of(document: Path) -> str:
    """Return a document's path in the repository."""
    return str(document.relative_to(REPOSITORY))


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks; raises ValueError for one that has no end."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opening = FENCE.match(line)
        if not opening:
            continue
        indent, fence, language = len(opening[1]), opening[2], opening[3]
        content: list[str] = []
        for _, inner in lines:
            if inner.strip() == fence:
                break
            content.append(inner[indent:] if inner[:indent].isspace() else inner)
        else:
            raise ValueError(f"line {number}: a block has no end")
        yield Block(language, "\n".join(content) + "\n", number + 1)


def without_blocks(text: str) -> str:
    """Return the text with the lines of fenced blocks emptied."""
    lines = text.splitlines()
    for block in blocks(text):
        count = block.text.count("\n")
        lines[block.line - 1 : block.line - 1 + count] = [""] * count
    return "\n".join(lines)


def prose(text: str) -> str:
    """Return the text without fenced blocks and without code in the line."""
    return CODE.sub("", without_blocks(text))


def links(text: str) -> list[str]:
    """Return the targets of links and pictures."""
    return [match[1] or match[2] for match in LINK.finditer(prose(text))]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for line in without_blocks(text).splitlines():
        heading = HEADING.match(line)
        if heading:
            words = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            found.add(f"{words}-{seen[words]}" if seen[words] else words)
            seen[words] += 1
    return found
