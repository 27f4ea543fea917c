"""What reaches the terminal: consoles, tables and JSON, none of which a model can speak through.

Text from a model or a service has been escaped by the broker already; it is escaped here again,
and Rich's markup is never on: names of tensors are data, whatever they look like.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model_loader_wire.causes import printable

PIPE_WIDTH = 200
"""Columns where there is no terminal to ask: a table in a file need not fit a screen."""
CELL_LENGTH = 400
"""Most characters of one text from a model in a line."""

ON = "green"
OFF = "yellow"
BAD = "bold red"
DIM = "dim"
HEAD = "bold"


def console(*, to_stderr: bool = False) -> Console:
    """A console on standard output or standard error, without markup, emoji or highlighting."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else PIPE_WIDTH,
    )


def safe(text: object, length: int = CELL_LENGTH) -> str:
    """One line of printable characters that the output's encoding has."""
    line = printable(str(text), length).replace("\n", "\\n").replace("\t", "\\t")
    return encodable(line)


def safe_lines(text: str) -> str:
    """As `safe`, with line breaks and tabs left as they are."""
    return encodable(printable(text))


def encodable(text: str) -> str:
    """Escape what standard output cannot encode, for example under LANG=C."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def can_show(characters: str) -> bool:
    """Whether standard output's encoding has all of these characters."""
    return encodable(characters) == characters


def styled(*pieces: str | tuple[str, str]) -> Text:
    """A line of pieces, each a text or a text and its style."""
    return Text.assemble(*pieces)


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table; the columns in `right` hold numbers."""
    result = Table(box=None, pad_edge=False, header_style=HEAD, show_edge=False, padding=(0, 2))
    numbers = set(right)
    for column in columns:
        result.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return result


def print_facts(screen: Console, facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, a line each; values that are no `Text` are made safe."""
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        line = Text(f"  {name:<{width}}  ", DIM)
        line.append_text(value if isinstance(value, Text) else Text(safe(value), ""))
        screen.print(line, soft_wrap=True)


def add_row(to: Table, *cells: object) -> None:
    """Add a row; cells that are no `Text` are made safe."""
    to.add_row(*(cell if isinstance(cell, Text) else Text(safe(cell)) for cell in cells))


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON document of ASCII characters to standard output."""
    text = json.dumps(finite(value), indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def finite(value: Any) -> Any:
    """The value with infinities and "not a number", which JSON does not have, as their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def in_bytes(count: float) -> str:
    """A number of bytes for people: `3.6 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def in_seconds(seconds: float) -> str:
    """A duration for people, from microseconds to hours."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs" if can_show("µ") else f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
