"""``python -m tests.fuzz models|wire|coverage ...``: run one kind of fuzzing; `--help` of each."""

from __future__ import annotations

import importlib
import sys

KINDS = {
    "models": "tests.fuzz.models.run",
    "wire": "tests.fuzz.wire.run",
    "coverage": "tests.fuzz.coverage.run",
}
"""By the first argument, the module whose `main(arguments)` returns the exit status."""


def main(arguments: list[str]) -> int:
    """Run the kind of fuzzing that is named first; returns the exit status."""
    if not arguments or arguments[0] not in KINDS:
        print(f"usage: python -m tests.fuzz {{{','.join(KINDS)}}} [--help]", file=sys.stderr)
        return 2
    status: int = importlib.import_module(KINDS[arguments[0]]).main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
