"""``python -m tests.fuzz wire``: hostile bytes on every socket of the service.

Each fuzzer holds what comes back against what the protocol says is due, and a healthy model or an
honest caller beside it against what it always gets. The exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
from pathlib import Path

from tests.fuzz.campaign import Fuzzer, Table
from tests.fuzz.report import document, markdown, write_json
from tests.fuzz.wire.attaching import attaching
from tests.fuzz.wire.calls import calls
from tests.fuzz.wire.compiled import compiled
from tests.fuzz.wire.knocking import knocking
from tests.fuzz.wire.scraping import scraping
from tests.fuzz.wire.steering import steering
from tests.fuzz.wire.targets import decoding
from tests.fuzz.wire.to_broker import to_broker
from tests.fuzz.wire.to_client import to_client
from tests.fuzz.wire.to_worker import to_worker
from tests.support.processes import become_subreaper

FUZZERS: dict[str, tuple[Fuzzer, int]] = {
    "readers": (decoding, 100_000),
    "to-client": (to_client, 50_000),
    "to-broker": (to_broker, 10_000),
    "compiled": (compiled, 10_000),
    "attach": (attaching, 5_000),
    "grpc": (calls, 20_000),
    "to-worker": (to_worker, 20_000),
    "admin": (steering, 10_000),
    "metrics": (scraping, 10_000),
    "tls": (knocking, 5_000),
}
"""Each with the inputs of a full run, which takes some fifty minutes on two cores."""
PART = 0.05
"""Of a full run, unless the command line says otherwise."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m tests.fuzz wire", description=__doc__)
    result.add_argument("names", nargs="*", metavar="FUZZER", help=", ".join(FUZZERS))
    result.add_argument(
        "--part", type=float, default=PART, help=f"of a full run's inputs (default: {PART:g})"
    )
    result.add_argument("--seconds", type=float, help="end each fuzzer after that time")
    result.add_argument("--seed", type=int, default=1, help="of all inputs (default: 1)")
    result.add_argument("--json", type=Path, help="a file for the counts")
    result.add_argument("--document", type=Path, help="a Markdown file to write the tables into")
    return result


def main(arguments: list[str]) -> int:
    """Run the fuzzers that are named, or all; returns the exit status."""
    made = parser()
    given = made.parse_args(arguments)
    if unknown := set(given.names) - set(FUZZERS):
        made.error(f"there is no fuzzer {', '.join(sorted(unknown))}")
    become_subreaper()
    tables: list[Table] = []
    for name in given.names or FUZZERS:
        fuzz, full = FUZZERS[name]
        table = fuzz(given.seed, max(1, round(full * given.part)), given.seconds)
        tables.append(table)
        print(f"## {table.name}\n\n{markdown(table)}\n", flush=True)
    about = {
        "date": datetime.date.today().isoformat(),
        "seed": given.seed,
        "python": platform.python_version(),
    }
    if given.json is not None:
        write_json(given.json, tables, about)
    if given.document is not None:
        before = given.document.read_text(encoding="utf-8")
        document(given.document, "wire", summary(tables, about, before))
    return 1 if any(table.found for table in tables) else 0


def summary(tables: list[Table], about: dict[str, object], before: str) -> str:
    """One row for each fuzzer, for people who only want to know how much and what was found.

    Rows that stand in the document already stay, if they are of the same day and seed.
    """
    head = [f"{about['date']}, seed {about['seed']}.", ""]
    head += ["| what | inputs | findings | beside that |", "| --- | ---: | ---: | --- |"]
    _, _, after = before.partition("\n".join(head) + "\n")
    rows: dict[str, str] = {}
    for row in itertools.takewhile(lambda line: line.startswith("| "), after.splitlines()):
        rows[row.split(" | ")[0]] = row
    for table in tables:
        facts = ", ".join(f"{name}: {count:,}" for name, count in table.facts.items())
        name = f"| {table.name}"
        rows[name] = f"{name} | {table.inputs:,} | {table.found} | {facts} |"
    return "\n".join([*head, *rows.values()])
