"""``python -m benchmarks``: run the arms in fresh process pairs and write JSON and Markdown."""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.report import markdown

ARMS = ("in-process", "in-process again", "direct", "relayed", "echo")
CALLS = {"4 bytes": 400}
"""Calls in a block; models that are not named get `MOBILENET_CALLS`."""
MOBILENET_CALLS = 40
FIGURES = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    result.add_argument("--pairs", type=int, default=12, help="process pairs (default: 12)")
    result.add_argument("--blocks", type=int, default=5, help="blocks a process (default: 5)")
    result.add_argument("--seed", type=int, default=1, help="of the arms' order (default: 1)")
    result.add_argument(
        "--output",
        type=Path,
        default=Path("benchmarks/results"),
        help="folder for raw samples (JSON) and the tables (default: %(default)s)",
    )
    result.add_argument(
        "--document", type=Path, help="a Markdown file whose figures are written anew, if given"
    )
    return result


def models() -> dict[str, bytes]:
    """Return the models that are measured, all made by the project's writer."""
    from loader_service.writer import mobilenet, small

    return {
        "4 bytes": small.add(),
        "MobileNet v2 float32": mobilenet.mobilenet_v2(),
        "MobileNet v2 int8": mobilenet.mobilenet_v2(quantized=True),
    }


def main() -> int:
    """Run everything; returns the exit status."""
    given = parser().parse_args()
    order = random.Random(given.seed)
    given.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": describe(), "calls": {}, "loads": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models().items():
            path = Path(folder) / "model.tflite"
            path.write_bytes(model)
            calls = CALLS.get(name, MOBILENET_CALLS)
            results["calls"][name] = run_calls(name, path, calls, given, order)
            results["loads"][name] = run_loads(name, path, given.pairs, order)
    results["machine"]["load_average_after"] = describe()["load_average"]
    (given.output / "samples.json").write_text(json.dumps(results, indent=1))
    table = markdown(results)
    (given.output / "tables.md").write_text(table)
    print(table)
    if given.document is not None:
        text = given.document.read_text()
        given.document.write_text(
            FIGURES.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", text)
        )
    return 0


def run_calls(
    name: str, path: Path, calls: int, given: argparse.Namespace, order: random.Random
) -> list[dict[str, Any]]:
    """Run all arms of one model, pair by pair, in random order."""
    pairs = []
    for number in range(given.pairs):
        pair = {}
        for arm in order.sample(ARMS, len(ARMS)):
            _progress(f"{name}: pair {number + 1}/{given.pairs}, {arm}")
            program = arm.removesuffix(" again")
            pair[arm] = _run("benchmarks.arms", program, path, calls, given.blocks)
        pairs.append(pair)
    return pairs


def run_loads(name: str, path: Path, pairs: int, order: random.Random) -> list[dict[str, Any]]:
    """Load one model in both ways, pair by pair, in random order."""
    result = []
    for number in range(pairs):
        pair = {}
        for arm in order.sample(("in-process", "service"), 2):
            _progress(f"{name}: loads, pair {number + 1}/{pairs}, {arm}")
            pair[arm] = _run("benchmarks.loading", arm, path)
        result.append(pair)
    return result


def _run(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, check=True, capture_output=True)
    return json.loads(done.stdout)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
