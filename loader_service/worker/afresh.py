"""Executing Python afresh for a worker whose device starts threads when it is loaded.

The intermediate process does it before it enters a namespace. Memory belongs to the user namespace
in which it was executed: from one of the service's user's own, that user could read it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import NoReturn

from loader_service.sandbox.descriptors import place
from loader_service.worker import main as worker
from loader_service.worker.fresh_python import bootstrap, command, environment
from loader_service.worker.orders import Spawn

PROGRAM = bootstrap("loader_service.worker.executed")
WORD_LENGTH = 1 << 17
"""Of what the processes say to each other that make such a worker."""


def execute(
    runtime: str, order: Spawn, null: int, descriptors: Sequence[int], report: int
) -> NoReturn:
    """Be a fresh intermediate process, which has `order` and `report`, and goes on in `executed`.

    `descriptors` are those of the order. Does not return; raises OSError as long as this process
    can still report it itself.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(json.dumps(order.to_fields()).encode())
    ours.close()
    error_pipe, control, *channels = descriptors
    others = (*channels, report, theirs.fileno())
    places = {0: null, 1: null, 2: error_pipe, worker.CONTROL: control}
    place(places | dict(enumerate(others, worker.CHANNEL)))
    report = worker.CHANNEL + len(channels)
    line = command(PROGRAM, str(report), str(report + 1), runtime)
    try:
        os.execve(line[0], line, environment())
    except OSError as error:
        answer = {"error": f"Python could not be executed: {error}"}
        os.write(report, json.dumps(answer).encode())
    finally:
        os._exit(0)
