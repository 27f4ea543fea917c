"""What a worker executes that is not forked from the zygote: warm up, load the devices, serve.

When its devices are loaded, the process that made it enters the empty root for it, and ends. What
comes then is the life of every worker.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import traceback
from typing import Any

from loader_service.runtime.runtimes import find_runtime
from loader_service.sandbox import afresh, lockdown, own_file, process, signals
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.grants import NOTHING, Grants
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.lockdown import Outcome
from loader_service.sandbox.own_file import OwnFile
from loader_service.sandbox.resource_limits import data_in_use
from loader_service.worker import main as worker
from loader_service.worker.afresh import WORD_LENGTH
from loader_service.worker.opening import open_devices
from loader_service.worker.orders import Spawn


def main(arguments: list[str]) -> int:
    """Be a worker; never returns, because the exit of Python itself asks for what is forbidden."""
    status = 1
    try:
        status = _live(socket.socket(fileno=int(arguments[0])), arguments[1])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _live(link: socket.socket, runtime_name: str) -> int:
    """Load, have the root entered, and serve; returns the exit status."""
    signals.restore_defaults()
    process.set_name("ml-worker")
    process.use_one_malloc_arena()
    link.send(json.dumps({}).encode())
    told = json.loads(link.recv(WORD_LENGTH))
    order = Spawn.from_fields(told["order"])
    grants = NOTHING if order.grants is None else Grants.from_fields(order.grants)
    if told["has_file"]:
        own_file.give(
            OwnFile(RootFile(grants.file, order.file_bytes), worker.CHANNEL + order.channels)
        )
    try:
        runtime = find_runtime(runtime_name)
        runtime.warm()
        lockdown.warm_up()
        afresh.only_read(grants.device_nodes)
        devices = open_devices(runtime, order.devices or ())
        entered = _become(told)
        gc.collect()
        gc.freeze()
        # The last moment with a /proc.
        inherited_bytes = data_in_use()
        # The process that made this one ends next; from then on the broker's death ends it.
        process.set_parent_death_signal(0)
    except Exception as error:
        link.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return 1
    link.send(json.dumps({}).encode())
    if not link.recv(WORD_LENGTH):
        return 1
    link.close()
    signals.exit_on_signals()
    return worker.run(runtime, entered, inherited_bytes, order.channels, devices, grants)


def _become(told: dict[str, Any]) -> Outcome:
    """Become the worker's user; returns what has been entered with that."""
    refused = {Layer(name): why for name, why in told["refused"].items()}
    entered = set(map(Layer, told["entered"]))
    if told["becomes"] is not None:
        afresh.become(told["becomes"])
        entered.add(Layer.UNPRIVILEGED_UID)
    return Outcome(frozenset(entered), refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
