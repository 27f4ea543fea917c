"""Zygote, intermediate, worker: the two forks that put a worker into its namespaces.

The intermediate enters the namespaces and forks, so that the worker is process 1 of its own; it
then ends, and the kernel hands the worker to the broker, the nearest subreaper.
"""

from __future__ import annotations

import json
import os
import traceback

from loader_service.runtime.engine import Runtime
from loader_service.sandbox import lockdown, own_file, process, signals
from loader_service.sandbox.descriptors import place
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.grants import Grants
from loader_service.sandbox.own_file import OwnFile
from loader_service.sandbox.resource_limits import data_in_use
from loader_service.worker import afresh
from loader_service.worker import main as worker
from loader_service.worker.granted import Granted
from loader_service.worker.opening import Devices, open_devices
from loader_service.worker.orders import Spawn

REPORT_LENGTH = 65536
ERROR_LENGTH = 4096


def spawn(runtime: Runtime, order: Spawn, null: int, descriptors: list[int]) -> dict[str, object]:
    """Fork a worker that owns `descriptors` (stderr, control, channels); returns what happened.

    The answer holds the worker's ``pid``, or ``error``. The descriptors are closed here, so that
    the death of the worker ends its sockets.
    """
    reading, writing = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        _intermediate(runtime, order, null, descriptors, writing)
    os.close(writing)
    for descriptor in descriptors:
        os.close(descriptor)
    report = b""
    while piece := os.read(reading, REPORT_LENGTH):
        report += piece
    os.close(reading)
    _, status = os.waitpid(intermediate, 0)
    if not report:
        end = os.waitstatus_to_exitcode(status)
        how = f"signal {-end}" if end < 0 else f"status {end}"
        return {"error": f"the intermediate process ended without a report ({how})"}
    answer: dict[str, object] = json.loads(report)
    return answer


def _intermediate(
    runtime: Runtime, order: Spawn, null: int, descriptors: list[int], report: int
) -> None:
    """Make the worker and report it; never returns."""
    answer: dict[str, object] = {}
    try:
        if len(descriptors) != 2 + order.channels:
            raise OSError(f"{len(descriptors)} descriptors came for {order.channels} channels")
        # A library that hangs while it is loaded ends with the zygote, of which that is the end.
        process.set_parent_death_signal()
        granted = Granted.of(order)
        if granted.grants.afresh:
            afresh.execute(runtime.name, order, null, descriptors, report)
        pid = _fork(runtime, order, granted, null, descriptors)
        answer = {"pid": pid}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"[:ERROR_LENGTH]}
    finally:
        os.write(report, json.dumps(answer).encode())
        os._exit(0)


def _fork(
    runtime: Runtime,
    order: Spawn,
    granted: Granted,
    null: int,
    descriptors: list[int],
) -> int:
    """Enter the namespaces and fork the worker; returns its pid."""
    devices = open_devices(runtime, order.devices)
    # Read here, the last place with a /proc.
    inherited_bytes = data_in_use()
    namespaces = granted.enter_namespaces(order.uid)
    pid = os.fork()
    if pid == 0:
        descriptors = _with_file(descriptors, granted.file, namespaces.file)
        _worker(runtime, namespaces, inherited_bytes, null, descriptors, devices, granted.grants)
    return pid


def _with_file(descriptors: list[int], file: RootFile | None, descriptor: int | None) -> list[int]:
    """Put the descriptor of the granted file behind the others, where the devices find it."""
    if file is None or descriptor is None:
        return descriptors
    # The first two, standard error and the control socket, have places before the channels.
    own_file.give(OwnFile(file, worker.CHANNEL + len(descriptors) - 2))
    return [*descriptors, descriptor]


def _worker(
    runtime: Runtime,
    namespaces: lockdown.Outcome,
    inherited_bytes: int,
    null: int,
    descriptors: list[int],
    devices: Devices | None,
    grants: Grants,
) -> None:
    """Put the descriptors into place and be the worker; never returns.

    They are those of the order, and behind them that of the granted file, if there is one.
    """
    status = 1
    try:
        process.set_name("ml-worker")
        error_pipe, control, *others = descriptors
        places = {0: null, 1: null, 2: error_pipe, worker.CONTROL: control}
        place(places | dict(enumerate(others, worker.CHANNEL)))
        signals.exit_on_signals()
        channels = len(others) - (own_file.given() is not None)
        status = worker.run(runtime, namespaces, inherited_bytes, channels, devices, grants)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
