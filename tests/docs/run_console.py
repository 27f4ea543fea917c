"""Runs the console blocks of one document in order, in one shell.

Lines that begin with `$ ` are commands (`> ` continues one); the lines after a command are what it
prints, on both streams, where the document shows it. A line `...` stands for any lines, `...`
within one for any text. A command must end with status 0: `; echo $?` shows another one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.markdown import Block

SECONDS = 300
END = "==== end of command"


@dataclass(frozen=True, slots=True)
class Command:
    """A command and the output that the document shows, None if it shows none."""

    text: str
    line: int
    output: str | None


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block; raises ValueError for output that no command gives."""
    text, line, output = "", 0, list[str]()
    for number, content in enumerate(block.text.splitlines(), block.line):
        if content.startswith("$ "):
            if text:
                yield Command(text, line, "\n".join(output) or None)
            text, line, output = content[2:], number, []
        elif not text:
            raise ValueError(f"line {number}: a console block begins with a command")
        elif content.startswith("> ") and not output:
            text += "\n" + content[2:]
        else:
            output.append(content)
    if text:
        yield Command(text, line, "\n".join(output) or None)


def matches(promised: str, found: str) -> bool:
    """Compare output line by line, blanks at line ends aside; `...` stands for anything."""
    parts = []
    for line in promised.strip().splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            pieces = (r"[ \t]+".join(map(re.escape, part.split())) for part in line.split("..."))
            parts.append(r"[ \t]*" + r".*?".join(f"[ \t]*{piece}[ \t]*" for piece in pieces) + "\n")
    lines = [line.rstrip() for line in found.strip().splitlines()]
    return re.fullmatch("".join(parts), "\n".join(lines) + "\n") is not None


def run(
    blocks: Iterable[Block], folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[Command, int, str]]:
    """Run every command in one shell; yields each with its status and output."""
    given = [command for block in blocks for command in commands(block)]
    script = "trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT\n" + "".join(
        f'{command.text}\necho "\n{END} $?"\n' for command in given
    )
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=SECONDS)
    finally:
        _end_session(shell.pid)
    answers = re.split(rf"\n{re.escape(END)} (\d+)\n", output)
    for command, printed, status in zip(given, answers[::2], answers[1::2], strict=False):
        yield command, int(status), printed
    if len(answers) // 2 < len(given):
        missing = given[len(answers) // 2]
        raise AssertionError(f"line {missing.line}: {missing.text!r} did not end: {answers[-1]}")


def _end_session(session: int) -> None:
    """End what the commands left in the background."""
    try:
        os.killpg(session, signal.SIGTERM)
    except ProcessLookupError:
        return
