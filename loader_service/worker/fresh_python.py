"""Starting Python afresh for a module of ours: with the paths of the process that starts it, a
small environment, and nothing else of it. Imports little, because a private broker begins with it.
"""

from __future__ import annotations

import json
import os
import sys

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    # Models and their packed weights in huge pages: a fifteenth of the page faults of a load.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""All that a zygote, and so a worker, has of an environment."""


def bootstrap(module: str) -> str:
    """Return the program that calls a module's ``main`` with the arguments of `command`."""
    return f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from {module} import main
sys.exit(main(sys.argv[2:]))
"""


def command(program: str, *arguments: str) -> list[str]:
    """Return the command line of a `bootstrap`."""
    paths = json.dumps([path for path in sys.path if path])
    return [sys.executable, "-I", "-c", program, paths, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of such a process."""
    # The interpreter itself may need it to find its library.
    library_path = os.environ.get("LD_LIBRARY_PATH")
    return ENVIRONMENT | ({"LD_LIBRARY_PATH": library_path} if library_path else {})
