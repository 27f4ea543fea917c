"""How far a run has come: a bar in a terminal, a line for each part elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..terminal import console, in_seconds
from .processes import Step


class Reporter:
    """Counts the processes of a run, and names the part that they belong to."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=runs)
        self._part = ""
        self._began = time.monotonic()
        self._started = False

    def part(self, name: str) -> Step:
        """Begin a part; returns what its processes are told to."""
        self.finish_part()
        self._part, self._began = name, time.monotonic()
        return self._step

    def finish_part(self) -> None:
        """Say how long the part took, where no bar can show it."""
        if self._part and not self._progress.console.is_terminal:
            taken = in_seconds(time.monotonic() - self._began)
            self._progress.console.print(f"{self._part}: {taken}")
        self._part = ""

    def _step(self, text: str) -> None:
        if self._started:
            self._progress.advance(self._task)
        self._started = True
        self._progress.update(self._task, description=f"{self._part}, {text}")


@contextmanager
def reporting(runs: int, *, shown: bool = True) -> Iterator[Reporter]:
    """Show the progress of so many processes on standard error."""
    screen = console(to_stderr=True)
    if not shown:
        screen.quiet = True
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    with bar:
        reporter = Reporter(bar, runs)
        yield reporter
        reporter.finish_part()
