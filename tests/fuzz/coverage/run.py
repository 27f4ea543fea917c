"""``python -m tests.fuzz coverage``: coverage-guided search for faults of the pure readers.

Each target is searched by atheris in a process of its own. A target may end in a declared refusal
or a value, within a time that its input's size allows; anything else is a fault, and the exit
status 1. Needs the extra ``fuzz``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.campaign import Table
from tests.fuzz.report import document, markdown, write_json

MODULES = ("tests.fuzz.models.targets", "tests.fuzz.wire.targets")
"""Modules with `TARGETS` and `EXAMPLES`, by the target's name, and perhaps `MUTATORS`."""

INSTRUMENTED = "loader_service,model_loader_wire,model_loader"
"""Packages whose code counts its coverage."""

LONGEST_INPUT = 1 << 16
HANG_SECONDS = 60
MEMORY_MIB = 2048


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m tests.fuzz coverage", description=__doc__)
    result.add_argument("--inputs", type=int, default=20_000, help="of each target (20000)")
    result.add_argument("--seconds", type=int, default=60, help="of each target at most (60)")
    result.add_argument("--seed", type=int, default=1, help="of the search (default: 1)")
    result.add_argument("--target", action="append", help="only this one; repeatable")
    result.add_argument("--keep", type=Path, help="a folder for inputs that showed a fault")
    result.add_argument("--json", type=Path, help="a file for the counts")
    result.add_argument("--document", type=Path, help="a Markdown file to write the table into")
    return result


def main(arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    given = parser().parse_args(arguments)
    if find_spec("atheris") is None:
        print("atheris is not installed: pip install 'model-loader[fuzz]'", file=sys.stderr)
        return 2
    whole = Table("coverage")
    for name in MODULES:
        for target in importlib.import_module(name).TARGETS:
            if not given.target or target in given.target:
                search(whole, name, target, given)
    table = markdown(whole, ("target and how an input ended", "inputs"))
    print(table)
    if given.json is not None:
        write_json(given.json, [whole], {"seed": given.seed})
    if given.document is not None:
        document(given.document, "coverage", table)
    return 1 if whole.found else 0


def search(whole: Table, module: str, target: str, given: argparse.Namespace) -> None:
    """Search one target, and add what came of it to the table."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        corpus, counts = Path(folder) / "corpus", Path(folder) / "counts"
        kept = given.keep or Path(folder) / "kept"
        for made in (corpus, kept):
            made.mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(importlib.import_module(module).EXAMPLES[target]):
            (corpus / str(number)).write_bytes(example)
        command = [
            *(sys.executable, "-m", "tests.fuzz.coverage.searching"),
            *(INSTRUMENTED, module, target, str(counts), str(corpus)),
            f"-runs={given.inputs}",
            f"-max_total_time={given.seconds}",
            f"-seed={given.seed}",
            f"-artifact_prefix={kept}/{target.replace(' ', '-')}-",
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={HANG_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB + _peak_mib()}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        outcomes = json.loads(counts.read_text()) if counts.exists() else {}
    for outcome, number in outcomes.items():
        whole.counts[f"{target}: {outcome}"] += number
    reached = re.findall(r"cov: (\d+)", done.stderr)
    whole.facts[f"branches reached in {target}"] = int(reached[-1]) if reached else 0
    whole.seconds += time.monotonic() - began
    if done.returncode:
        whole.find(f"{target}: {_fault(done.stderr)}")


def _peak_mib() -> int:
    """The most memory that this process has had, from which the count of its children goes on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _fault(said: str) -> str:
    """The lines of libFuzzer's log that name a fault."""
    lines = [line.strip() for line in said.splitlines()]
    telling = [
        line
        for line in lines
        if re.match(r"[\w.]*(Error|Exception|TooSlow)\b|==\d+==|artifact", line)
    ]
    return " / ".join(telling[:4] or lines[-3:])[:500]
