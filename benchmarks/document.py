"""Puts a run's tables between the marks of a Markdown document.

A mark is `<!-- bench: NAME -->`, and what was measured stands between it and
`<!-- end of bench -->`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MARKED = re.compile(r"(<!-- bench: ([a-z-]+) -->\n)(.*?)(<!-- end of bench -->)", re.DOTALL)
BEGIN = re.compile(r"<!-- bench:")


class BadMarks(ValueError):
    """The document's marks are not those of the tables."""


def renewed(text: str, parts: Mapping[str, str]) -> str:
    """Return the document with each part in its place; what other marks enclose stays.

    Raises BadMarks unless every part has exactly one mark, and every mark its end.
    """
    names = [found[2] for found in MARKED.finditer(text)]
    if len(names) != len(BEGIN.findall(text)):
        raise BadMarks("a mark has no end")
    if sorted(name for name in names if name in parts) != sorted(parts):
        raise BadMarks(f"the document has marks for {sorted(names)}, the run {sorted(parts)}")

    def new(found: re.Match[str]) -> str:
        part = parts.get(found[2])
        return found[0] if part is None else f"{found[1]}\n{part}\n{found[4]}"

    return MARKED.sub(new, text)
