"""The intermediate process that was executed afresh, and the worker that it forks.

The worker loads its devices, with the threads that they start. The intermediate process then enters
the empty root for all of them, and ends; what comes is the life of every worker.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback

from loader_service.runtime.engine import Runtime
from loader_service.runtime.runtimes import find_runtime
from loader_service.sandbox import afresh, lockdown, own_file, policy, process, signals
from loader_service.sandbox.descriptors import close_all_except
from loader_service.sandbox.grants import Grants
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.lockdown import Outcome
from loader_service.sandbox.own_file import OwnFile
from loader_service.sandbox.resource_limits import data_in_use
from loader_service.worker import main as worker
from loader_service.worker.afresh import WORD_LENGTH
from loader_service.worker.granted import Granted
from loader_service.worker.opening import Devices, open_devices
from loader_service.worker.orders import Spawn

ERROR_LENGTH = 4096


class NotMade(Exception):
    """No worker with these devices can be made; the message says why."""


def main(arguments: list[str]) -> int:
    """Make a worker and report it, as the zygote's own intermediate processes do; never returns.

    ``arguments`` are the descriptors of the report and of the order, and the runtime's name.
    """
    report, orders = int(arguments[0]), int(arguments[1])
    answer: dict[str, object] = {}
    try:
        with socket.socket(fileno=orders) as link:
            order = Spawn.from_fields(json.loads(link.recv(WORD_LENGTH)))
        signals.restore_defaults()
        process.set_name("ml-worker")
        process.use_one_malloc_arena()
        runtime = find_runtime(arguments[2])
        runtime.warm()
        lockdown.warm_up()
        answer = {"pid": _make(runtime, order)}
    except NotMade as error:
        answer = {"error": str(error)[:ERROR_LENGTH]}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"[:ERROR_LENGTH]}
    finally:
        os.write(report, json.dumps(answer).encode())
        os._exit(0)


def _make(runtime: Runtime, order: Spawn) -> int:
    """Make a worker that has loaded its devices and is in its root; returns its pid."""
    granted = Granted.of(order)
    namespaces = granted.enter_namespaces(order.uid, loads_later=True)
    if namespaces.root is None:
        # What its threads may open would be the host's.
        reason = namespaces.refused.get(Layer.EMPTY_ROOT, "")
        raise NotMade(f"a device that starts threads needs an empty root: {reason}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _be_worker(runtime, order, granted, namespaces, theirs)
    theirs.close()
    # A zygote makes no other worker meanwhile.
    ours.settimeout(order.load_seconds)
    try:
        _expect_loaded(ours)
        namespaces.root.enter()
        ours.send(json.dumps({}).encode())
    except TimeoutError:
        _end(pid)
        raise NotMade(f"a device was not loaded within {order.load_seconds:g} s") from None
    except BaseException:
        _end(pid)
        raise
    return pid


def _expect_loaded(link: socket.socket) -> None:
    said = link.recv(WORD_LENGTH)
    if not said:
        raise NotMade("its process ended before it had loaded the device")
    if error := json.loads(said).get("error"):
        raise NotMade(error)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _be_worker(
    runtime: Runtime,
    order: Spawn,
    granted: Granted,
    namespaces: Outcome,
    link: socket.socket,
) -> None:
    """Load the devices, have the root entered, and be the worker; never returns."""
    status = 1
    grants, file = granted
    try:
        # Until it has loaded the devices it ends with its maker: nobody else knows of it.
        process.set_parent_death_signal()
        own = worker.CHANNEL + order.channels
        kept = {*range(own), link.fileno()}
        if file is not None and namespaces.file is not None:
            os.dup2(namespaces.file, own)
            own_file.give(OwnFile(file, own))
            kept.add(own)
        close_all_except(kept)
        try:
            devices, outcome = _load(runtime, order, grants, namespaces)
            inherited_bytes = data_in_use()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:ERROR_LENGTH]
            link.send(json.dumps({"error": text}).encode())
            return
        # Its maker ends next; from the orders on it ends with the broker.
        process.set_parent_death_signal(0)
        link.send(json.dumps({}).encode())
        if not link.recv(WORD_LENGTH):
            return
        link.close()
        # A working directory that a device has changed meanwhile would not have moved.
        os.chdir("/")
        signals.exit_on_signals()
        status = worker.run(runtime, outcome, inherited_bytes, order.channels, devices, grants)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _load(
    runtime: Runtime, order: Spawn, grants: Grants, namespaces: Outcome
) -> tuple[Devices | None, Outcome]:
    """Give up what loading does not need, load, and give up the rest; returns what was entered."""
    afresh.give_up_rights(becomes_other=order.uid is not None)
    afresh.only_read(grants.device_nodes)
    devices = open_devices(runtime, order.devices)
    entered = set(namespaces.entered)
    if order.uid is not None:
        afresh.become(policy.INSIDE_UID if Layer.USER_NAMESPACE in entered else order.uid)
        entered.add(Layer.UNPRIVILEGED_UID)
    afresh.check_what_is_left(alone=Layer.PID_NAMESPACE in entered)
    gc.collect()
    gc.freeze()
    return devices, Outcome(frozenset(entered), namespaces.refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
