"""Errors for people: one clear line, and the worker's last words below it."""

from __future__ import annotations

from rich.text import Text

from model_loader import ModelLoaderError

from .terminal import BAD, DIM, console, safe_lines

LAST_WORDS_LINES = 20
"""Lines of a worker's last words that are shown: the last ones."""


def show_error(error: ModelLoaderError) -> None:
    """Write an error of the library to standard error."""
    show_failure(error.message, type(error).__name__)
    words = safe_lines(error.last_words).strip().splitlines()
    if words:
        screen = console(to_stderr=True)
        screen.print(Text("the worker's last words:", DIM))
        for line in words[-LAST_WORDS_LINES:]:
            screen.print(Text(f"  {line}", DIM), soft_wrap=True)


def show_failure(message: str, kind: str = "") -> None:
    """Write `model-loader: KIND: MESSAGE` to standard error."""
    line = Text("model-loader: ")
    if kind:
        line.append(f"{kind}: ", BAD)
    line.append(safe_lines(message))
    console(to_stderr=True).print(line, soft_wrap=True)


def warn(message: str) -> None:
    """Write a remark that changes nothing to standard error."""
    line = Text(f"model-loader: {safe_lines(message)}", DIM)
    console(to_stderr=True).print(line, soft_wrap=True)
