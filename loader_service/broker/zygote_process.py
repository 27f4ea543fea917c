"""Starting a zygote's process. Imports little, because a private broker begins with this."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import NamedTuple

BOOTSTRAP = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from loader_service.worker.zygote import main
sys.exit(main(sys.argv[2:]))
"""
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    # Models and their packed weights in huge pages: a fifteenth of the page faults of a load.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""All that a zygote, and so a worker, has of an environment."""


class ZygoteProcess(NamedTuple):
    """A process that gets warm, and the broker's end of the socket to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def start_zygote(runtime: str) -> ZygoteProcess:
    """Start one, by the broker's main thread, whose end is the zygote's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    library_path = os.environ.get("LD_LIBRARY_PATH")
    with theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                BOOTSTRAP,
                json.dumps([path for path in sys.path if path]),
                str(theirs.fileno()),
                runtime,
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # The interpreter itself may need it to find its library.
            env=ENVIRONMENT | ({"LD_LIBRARY_PATH": library_path} if library_path else {}),
            cwd="/",
        )
    return ZygoteProcess(process, ours)
