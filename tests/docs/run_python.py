"""Runs the Python blocks of one document in order, as one program.

    python -P run_python.py DOCUMENT.md < blocks.json

A line of a block may promise something, and is held to it (`...` stands for anything):

    expression  # → what repr() of it shows
    expression  # raises Name: the message

A block of the language `output` after a Python block is what that block prints.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
from typing import Any

PROMISE = re.compile(r"#\s*(→|raises)\s+(.*\S)\s*$")


class Broken(Exception):
    """A document says something that is not so."""


def matches(promised: str, found: str) -> bool:
    """Compare two texts, `...` in the promised one standing for anything."""
    pattern = ".*?".join(re.escape(part) for part in promised.split("..."))
    return re.fullmatch(pattern, found, re.DOTALL) is not None


def check_output(document: str, line: int, promised: str, printed: str) -> None:
    """Compare what was printed with what the document shows, trailing blanks aside."""
    shown = [text.rstrip() for text in promised.strip().splitlines()]
    given = [text.rstrip() for text in printed.strip().splitlines()]
    if not matches("\n".join(shown), "\n".join(given)):
        raise Broken(f"{document}:{line} shows\n{promised}but this is printed:\n{printed}")


class Runner:
    """Executes blocks in one namespace."""

    def __init__(self, document: str) -> None:
        self._document = document
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, text: str, line: int) -> str:
        """Execute one block that begins at `line`; returns what it printed."""
        tree = ast.parse("\n" * (line - 1) + text, self._document)
        lines = ["", *[""] * (line - 1), *text.splitlines()]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for statement in tree.body:
                promise = PROMISE.search(lines[statement.end_lineno or 0])
                if promise:
                    self._hold(statement, promise[1], promise[2])
                else:
                    self._execute(statement)
        return printed.getvalue()

    def _execute(self, statement: ast.stmt) -> None:
        module = ast.Module([statement], [])
        exec(compile(module, self._document, "exec"), self._names)

    def _hold(self, statement: ast.stmt, kind: str, promised: str) -> None:
        where = f"{self._document}:{statement.lineno}"
        if kind == "raises":
            try:
                self._execute(statement)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
                if not matches(promised, found):
                    raise Broken(f"{where} promises {promised!r}, but raises {found!r}") from error
                return
            raise Broken(f"{where} promises {promised!r}, but raises nothing")
        if not isinstance(statement, ast.Expr):
            raise Broken(f"{where} promises the value of what is no expression")
        value = eval(compile(ast.Expression(statement.value), self._document, "eval"), self._names)
        if not matches(promised, repr(value)):
            raise Broken(f"{where} promises {promised}, but gives {value!r}")


def main(document: str) -> None:
    """Run the blocks that come on stdin as a JSON list of [language, text, line]."""
    runner = Runner(document)
    printed = ""
    for language, text, line in json.load(sys.stdin):
        if language == "output":
            check_output(document, line, text, printed)
        else:
            printed = runner.run(text, line)


if __name__ == "__main__":
    main(sys.argv[1])
