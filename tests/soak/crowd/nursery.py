"""The process that makes the programs: it has imported everything, and forks for each.

    python -m tests.soak.crowd.nursery DIRECTORY RECORD

reads lines of JSON: ``{"start": NUMBER, "uid": UID, "relayed": BOOL}`` and ``{"kill": NUMBER}``. It
writes ``[NUMBER, STATUS]`` for each program that has ended; a negative status is a signal. At the
end of its input it ends what is left.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

import grpc  # noqa: F401 - imported before the fork, and not started

import model_loader_wire.v1.attach_pb2
import model_loader_wire.v1.model_loader_pb2_grpc  # noqa: F401 - as above
from tests.soak.crowd.program import Program, be, known
from tests.soak.crowd.record import Record

LOOK_SECONDS = 0.05


def main(directory: str, path: Path) -> None:
    """Make and reap programs."""
    record, models = Record(path), known()
    numbers: dict[int, int] = {}
    print("ready", flush=True)
    waiting = b""
    while True:
        readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
        if readable:
            piece = os.read(0, 1 << 16)
            if not piece:
                break
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if "kill" in order:
                    for pid, number in numbers.items():
                        if number == order["kill"]:
                            # It is this process's child: no other can have its pid by now.
                            os.kill(pid, signal.SIGKILL)
                    continue
                number, uid, relayed = order["start"], order["uid"], order["relayed"]
                if pid := os.fork():
                    numbers[pid] = number
                else:
                    status = 1
                    try:
                        os.close(0)
                        program = Program(number, record, models)
                        status = be(program, uid, directory, relayed=relayed)
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(status)
        _reap(numbers)
    for pid in numbers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _reap(numbers: dict[int, int]) -> None:
    """Tell of those that have ended."""
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        print(json.dumps([numbers.pop(pid), os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
