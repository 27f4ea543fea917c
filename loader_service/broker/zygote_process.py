"""Starting a zygote's process. Imports little, because a private broker begins with this."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import NamedTuple

from loader_service.worker.fresh_python import bootstrap, command, environment

BOOTSTRAP = bootstrap("loader_service.worker.zygote")


class ZygoteProcess(NamedTuple):
    """A process that gets warm, and the broker's end of the socket to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def start_zygote(runtime: str) -> ZygoteProcess:
    """Start one, by the broker's main thread, whose end is the zygote's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Ctrl-C at a terminal is sent to all of this process's group, in which the zygote is until it
    # begins a session of its own. What becomes of it is for the broker alone to say.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            process = subprocess.Popen(
                command(BOOTSTRAP, str(theirs.fileno()), runtime, str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment(),
                cwd="/",
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ZygoteProcess(process, ours)
