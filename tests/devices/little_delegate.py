"""Compiles the delegate of the tests, `delegate.c`, with whatever C compiler there is."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("delegate.c")


@cache
def compiler() -> str | None:
    """Return a C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def compile_delegate(folder: Path, *, threads: int = 0, at_load: str = "") -> Path:
    """Return the shared library, which starts so many threads when it is loaded.

    With threads, `at_load` is a statement in C that comes then. Skips the test where there is no
    compiler.
    """
    found = compiler()
    if found is None:
        pytest.skip("no C compiler is installed to build the tests' delegate with")
    library = folder / "little.so"
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread")
    defined = [f"-DTHREADS={threads}"] if threads else []
    defined += [f"-DAT_LOAD={at_load}"] if at_load else []
    subprocess.run([found, *flags, *defined, str(SOURCE), "-o", str(library)], check=True)
    library.chmod(0o755)
    return library
