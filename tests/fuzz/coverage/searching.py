"""``python -m tests.fuzz.coverage.searching MODULE TARGET COUNTS [ARGUMENT OF LIBFUZZER ...]``.

One search by atheris, in a process of its own: libFuzzer ends it. `COUNTS` is a file that gets the
outcomes as JSON. The exit status is not 0 if the target raised; the input is then kept as
libFuzzer's ``-artifact_prefix`` says.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections import Counter
from pathlib import Path

import atheris

INSTRUMENTED = ["loader_service", "model_loader_wire", "model_loader"]
"""Packages whose code counts its coverage."""

WRITTEN_EVERY = 100
"""Inputs between two writings of the counts: libFuzzer ends the process without a word."""


def main(arguments: list[str]) -> None:
    """Search until libFuzzer has had enough."""
    name, target_name, counts_path, *given = arguments
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = importlib.import_module(name)
    target = module.TARGETS[target_name]
    mutator = getattr(module, "MUTATORS", {}).get(target_name)
    counts: Counter[str] = Counter()

    def write() -> None:
        Path(counts_path).write_text(json.dumps(counts))

    def one(data: bytes) -> None:
        try:
            counts[target(data)] += 1
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
