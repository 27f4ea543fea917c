"""The zygote: a process that has the runtime warm, and forks workers from itself.

One thread; it has imported NumPy and the runtime and run a tiny model once, because detecting
the CPU reads files that the sandbox forbids. It never touches a caller's bytes. All workers of a
zygote share one address layout, so the broker keeps one per principal and renews it.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys

from loader_service.runtime.runtimes import find_runtime
from loader_service.sandbox import lockdown, process, signals
from loader_service.sandbox.descriptors import close_all_except
from loader_service.worker.orders import MOST_CHANNELS, Spawn
from loader_service.worker.spawn import spawn


def main(arguments: list[str]) -> int:
    """Warm up, say so, and spawn workers until the broker's socket ends."""
    broker_descriptor, runtime_name, broker_pid = int(arguments[0]), arguments[1], int(arguments[2])
    broker = socket.socket(fileno=broker_descriptor)
    process.set_parent_death_signal()
    if os.getppid() != broker_pid:
        return 0
    os.setsid()
    signals.restore_defaults()
    process.join_empty_keyring()
    process.set_name("ml-zygote")
    os.chdir("/")
    os.umask(0o077)
    process.use_one_malloc_arena()
    try:
        _serve(broker, runtime_name)
    except ConnectionError:  # the broker has ended before it read what was said
        return 0
    return 1


def _serve(broker: socket.socket, runtime_name: str) -> None:
    """Warm up, and spawn until the broker ends: ConnectionError. Returns where it cannot begin."""
    try:
        runtime = find_runtime(runtime_name)
        runtime.warm()
    except Exception as error:
        broker.send(json.dumps({"error": str(error)}).encode())
        return
    lockdown.warm_up()
    null = os.open("/dev/null", os.O_RDWR)
    close_all_except({0, 1, 2, broker.fileno(), null})
    gc.collect()
    gc.freeze()
    broker.send(json.dumps({"runtime": runtime.name, "version": runtime.version}).encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(broker, 65536, 2 + MOST_CHANNELS)
        if not data:
            raise ConnectionError
        order = json.loads(data)
        # An empty order is the question whether the zygote still answers.
        reply = spawn(runtime, Spawn.from_fields(order), null, descriptors) if order else {}
        broker.send(json.dumps(reply).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
