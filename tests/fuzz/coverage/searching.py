"""One search by atheris, in a process of its own, because libFuzzer ends it.

    python -m tests.fuzz.coverage.searching PACKAGES MODULE TARGET COUNTS [LIBFUZZER'S ARGUMENT ...]

`PACKAGES` are those whose code counts its coverage, with commas between them; `COUNTS` is a file
that gets the outcomes as JSON. The exit status is not 0 if the target raised; the input is then
kept as libFuzzer's ``-artifact_prefix`` says.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections import Counter
from pathlib import Path

import atheris

WRITTEN_EVERY = 100
"""Inputs between two writings of the counts: libFuzzer ends the process without a word."""

_PREFIX = "-artifact_prefix="


def main(arguments: list[str]) -> None:
    """Search until libFuzzer has had enough."""
    packages, name, target_name, counts_path, *given = arguments
    with atheris.instrument_imports(include=packages.split(",")):
        module = importlib.import_module(name)
    target = module.TARGETS[target_name]
    mutator = getattr(module, "MUTATORS", {}).get(target_name)
    counts: Counter[str] = Counter()
    prefix = next((each.partition("=")[2] for each in given if each.startswith(_PREFIX)), None)

    def write() -> None:
        Path(counts_path).write_text(json.dumps(counts))

    def one(data: bytes) -> None:
        try:
            outcome = target(data)
            counts[outcome] += 1
            if "SIG" in outcome and prefix is not None:
                Path(f"{prefix}{outcome.split()[-1]}-{counts[outcome]}").write_bytes(data)
        except BaseException:
            counts["a fault"] += 1
            write()
            raise
        if counts.total() % WRITTEN_EVERY == 0:
            write()

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if mutator is None or generator.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return bytes(mutator(bytes(data), generator)[:longest])

    more = {} if mutator is None else {"custom_mutator": mutate}
    atheris.Setup([sys.argv[0], *given], one, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
