"""In which line of a TOML text each key stands: the standard library's reader does not say it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter

from loader_service.configuration.mistakes import Keys

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
KEY = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
VALUE = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|'''
    r"""'''.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|.""",
    re.DOTALL,
)
"""A string, a comment, or one character of anything else."""


def lines_of(text: str) -> dict[Keys, int]:
    """Return the line of each table's head and each key of a text that is valid TOML.

    What stands within an inline table has the line of that table's key.
    """
    found: dict[Keys, int] = {}
    tables: Counter[Keys] = Counter()
    table: Keys = ()
    at = 0
    while (at := _after(BLANK, text, at)) < len(text):
        line = text.count("\n", 0, at) + 1
        if text[at] == "[":
            several = text.startswith("[[", at)
            keys, at = _keys(text, at + 1 + several)
            at += 1 + several
            table = _absolute(keys, tables)
            if several:
                tables[table] += 1
                table = (*table, tables[table] - 1)
            found.setdefault(table, line)
        else:
            keys, at = _keys(text, at)
            at = _end_of_value(text, at + 1)
            found[(*table, *keys)] = line
    return found


def _absolute(keys: tuple[str, ...], tables: Counter[Keys]) -> Keys:
    """Put in which of several tables of a name is meant: the last one, by TOML's rule."""
    path: Keys = ()
    for key in keys[:-1]:
        path = (*path, key)
        if tables[path]:
            path = (*path, tables[path] - 1)
    return (*path, keys[-1])


def _keys(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """Read a dotted key; returns its parts and the place of the character after it."""
    keys = []
    while (key := KEY.match(text, at)) is not None:
        written = key[1]
        quoted = written[0] in "\"'"
        keys.append(tomllib.loads(f"key = {written}")["key"] if quoted else written)
        at = key.end()
        if text[at] != ".":
            break
        at += 1
    return tuple(keys), at


def _end_of_value(text: str, at: int) -> int:
    """Return where the line of a value ends that begins here."""
    depth = 0
    while at < len(text) and (part := VALUE.match(text, at)) is not None:
        if part[0] == "\n" and not depth:
            break
        depth += (part[0] in "[{") - (part[0] in "]}")
        at = part.end()
    return at


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
