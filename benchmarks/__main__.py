"""``python -m benchmarks``: measure in fresh process pairs; write JSON, Markdown and pictures."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from benchmarks import cases, document, report, second_runtime
from benchmarks.models import REPOSITORY, Store
from benchmarks.plan import Plan
from benchmarks.report import ALL, OPTIONAL, SECTIONS
from model_loader_cli.bench.machine import describe
from model_loader_cli.bench.processes import ArmFailed
from model_loader_cli.bench.progress import reporting
from model_loader_cli.exits import Exit
from model_loader_cli.failing import show_failure
from model_loader_cli.terminal import console

PICTURES = "pictures"
"""The folder of the pictures, beside the document (or the tables)."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    result.add_argument(
        "--sections",
        default=",".join(SECTIONS),
        help=f"which ones, with commas between (default: %(default)s; there is also "
        f"{', '.join(OPTIONAL)}, which installs what it needs)",
    )
    result.add_argument(
        "--pairs",
        type=positive,
        help=f"process pairs (default: {cases.PAIRS}, quick: {cases.QUICK_PAIRS}); "
        "fewer than ten decide nothing",
    )
    result.add_argument(
        "--quick",
        action="store_true",
        help="fewer cases, pairs and calls: whether everything runs, in three minutes",
    )
    result.add_argument("--seed", type=int, default=1, help="of the arms' order (default: 1)")
    result.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "benchmarks" / "results",
        help="folder for raw samples, tables and pictures (default: benchmarks/results)",
    )
    result.add_argument(
        "--document",
        type=Path,
        help="a Markdown file whose tables and pictures are made anew; needs all sections, "
        f"or {', '.join(OPTIONAL)} alone",
    )
    result.add_argument(
        "--samples", type=Path, help="measure nothing: make everything from these raw samples"
    )
    return result


def positive(text: str) -> int:
    """Read a number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is not above zero")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; returns the exit status."""
    known = parser()
    given = known.parse_args(arguments)
    names = [name for name in given.sections.split(",") if name]
    if unknown := sorted(set(names) - set(ALL)):
        known.error(f"there is no section {unknown[0]!r}; there are {', '.join(ALL)}")
    if given.samples:
        results = json.loads(given.samples.read_text())
    elif given.document and not report.is_whole({"sections": names}):
        known.error("--document needs all sections")
    else:
        pairs = given.pairs or (cases.QUICK_PAIRS if given.quick else cases.PAIRS)
        results = measure(names, pairs, given.quick, given.seed)
    failed: dict[str, str] = results["failed"]
    whole = report.is_whole(results)
    publish(results, given.output, given.document if whole else None)
    for name, words in failed.items():
        show_failure(f"not measured: {name}: {words}")
    if given.document and not whole:
        show_failure(f"{given.document} was left as it is: a section is missing")
    return 1 if failed or (given.document and not whole) else 0


def measure(names: list[str], pairs: int, quick: bool, seed: int) -> dict[str, Any]:
    """Measure the named sections; returns the raw samples, and what is to be said of the machine.

    What an arm failed of is left out and named in `failed`.
    """
    began = time.monotonic()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "pairs": pairs,
        "quick": quick,
        "machine": describe(),
        "second_runtime": second_runtime.versions(),
        "sections": {},
    }
    runs = sum(ALL[name].runs(pairs, quick) for name in names)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, reporting(runs) as reporter:
        plan = Plan(pairs, quick, random.Random(seed), Store(Path(folder)), reporter)
        for name in names:
            try:
                results["sections"][name] = ALL[name].run(plan)
            except ArmFailed as error:  # nobody watches: the other sections are worth having
                plan.failed[ALL[name].TITLE] = str(error)
    results["failed"] = plan.failed
    results["machine_after"] = describe()
    results["seconds"] = time.monotonic() - began
    return results


def publish(results: dict[str, Any], output: Path, written: Path | None) -> None:
    """Write samples, tables and pictures, and show the tables."""
    output.mkdir(parents=True, exist_ok=True)
    # What is run apart from the rest does not take its place.
    prefix = f"{'-'.join(results['sections'])}-" if report.is_apart(results) else ""
    (output / f"{prefix}samples.json").write_text(json.dumps(results))
    text = report.markdown(results)
    (output / f"{prefix}tables.md").write_text(text)
    screen = console()
    if screen.is_terminal:
        screen.print(Markdown(text))
    else:
        print(text)
    draw(results, output / PICTURES)
    if written is not None:
        new = document.renewed(written.read_text(), report.parts(results))
        written.write_text(new)
        draw(results, written.parent / PICTURES)


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw the pictures of the run's sections, or say what is missing for that."""
    from benchmarks import pictures

    if not pictures.of(results["sections"]):
        return
    try:
        paths = list(pictures.draw(results["sections"], folder))
    except ImportError:
        print("no pictures: pip install 'model-loader[bench]' (make bench does)", file=sys.stderr)
        return
    print(f"{len(paths)} pictures in {folder}", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(int(Exit.INTERRUPTED))
