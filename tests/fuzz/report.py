"""What a run says at its end: tables in Markdown, JSON, and the part of a document for them."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from tests.fuzz.campaign import Table

PROGRESS_SECONDS = 10.0


def markdown(table: Table, heading: Sequence[str] = ("how an input ended", "inputs")) -> str:
    """Write a table: outcomes by their number, then the other facts, then what was found."""
    outcomes = sorted(table.counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [f"| {name} | {count:,} |" for name, count in outcomes]
    rows.append(f"| **all** | **{table.inputs:,}** |")
    lines = ["| " + " | ".join(heading) + " |", "| --- | ---: |", *rows]
    if table.facts:
        lines += ["", "| beside that | |", "| --- | ---: |"]
        lines += [f"| {name} | {count:,} |" for name, count in table.facts.items()]
    if table.found:
        lines += ["", f"**{table.found} findings:**", "", *(f"- {one}" for one in table.findings)]
    return "\n".join(lines)


def write_json(path: Path, tables: Sequence[Table], about: Mapping[str, object]) -> None:
    """Write all tables of a run, and what the run was, as JSON."""
    values = {"about": dict(about), "tables": [_values(table) for table in tables]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


def _values(table: Table) -> dict[str, object]:
    return {field.name: getattr(table, field.name) for field in fields(table)}


def document(path: Path, name: str, text: str) -> None:
    """Replace what stands in a Markdown file between the marks of that name.

    The marks are ``<!-- fuzz: NAME -->`` and ``<!-- end of fuzz -->``. Raises ValueError for a
    file without them.
    """
    marks = re.compile(rf"(<!-- fuzz: {re.escape(name)} -->\n).*?(<!-- end of fuzz -->)", re.DOTALL)
    before = path.read_text(encoding="utf-8")
    after, found = marks.subn(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", before)
    if not found:
        raise ValueError(f"{path} has no marks for {name!r}")
    path.write_text(after, encoding="utf-8")


class Progress:
    """Says on stderr how far a run is: in place on a terminal, else a line now and then."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._started = self._said = time.monotonic()

    def say(self, done: int, more: str = "") -> None:
        """Say it, if it is time to."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._said < (0.2 if terminal else PROGRESS_SECONDS):
            return
        self._said = now
        rate = done / (now - self._started)
        text = f"{self._name}: {done:,}/{self._count:,}, {rate:.0f}/s{more and ', ' + more}"
        print(
            f"\r\033[K{text}" if terminal else text,
            end="" if terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
