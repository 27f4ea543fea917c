"""Making a worker that is executed afresh: for a device that starts threads when it is loaded.

The intermediate process forks it when all namespaces have been entered, waits until it has loaded
its devices, and enters the empty root for all its threads; see `sandbox.afresh`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Sequence

from loader_service.sandbox import afresh, lockdown, policy, process
from loader_service.sandbox.descriptors import place
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.grants import Grants
from loader_service.sandbox.layers import Layer
from loader_service.worker import main as worker
from loader_service.worker.fresh_python import bootstrap, command
from loader_service.worker.orders import Spawn

PROGRAM = bootstrap("loader_service.worker.executed")
WORD_LENGTH = 1 << 17
"""Of what the two say to each other."""


class NotExecuted(Exception):
    """A worker could not be executed afresh; the message says why."""


def execute(
    runtime: str,
    order: Spawn,
    grants: Grants,
    file: RootFile | None,
    null: int,
    descriptors: Sequence[int],
) -> int:
    """Make a worker that has loaded its devices and is in its root; returns its pid.

    `descriptors` are those of the order. For the intermediate process, which ends then. Raises
    NotExecuted.
    """
    namespaces = lockdown.enter_namespaces(
        frozenset(lockdown.NAMESPACE_LAYERS),
        order.uid,
        file,
        grants.device_nodes,
        grants.empty_files,
        executes=True,
    )
    if namespaces.root is None:
        # What its threads may open would be the host's.
        reason = namespaces.refused.get(Layer.EMPTY_ROOT, "")
        raise NotExecuted(f"a device that starts threads needs an empty root: {reason}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        inherited = [*descriptors, *([] if namespaces.file is None else [namespaces.file])]
        _be_executed(runtime, order, null, [*inherited, theirs.fileno()])
    theirs.close()
    inside = Layer.USER_NAMESPACE in namespaces.entered
    told = {
        "order": order.to_fields(),
        "becomes": policy.INSIDE_UID if inside and order.uid is not None else order.uid,
        "entered": sorted(namespaces.entered),
        "refused": namespaces.refused,
        "has_file": namespaces.file is not None,
    }
    try:
        _expect_word(ours, "it ran")
        ours.send(json.dumps(told).encode())
        _expect_word(ours, "it had loaded the device")
        namespaces.root.enter()
        ours.send(json.dumps({}).encode())
    except (OSError, NotExecuted) as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise NotExecuted(str(error)) from None
    return pid


def _expect_word(link: socket.socket, when: str) -> None:
    """Wait until the worker says that it has come so far. Raises NotExecuted."""
    said = link.recv(WORD_LENGTH)
    if not said:
        raise NotExecuted(f"Python ended before {when}")
    if error := json.loads(said).get("error"):
        raise NotExecuted(error)


def _be_executed(runtime: str, order: Spawn, null: int, descriptors: Sequence[int]) -> None:
    """Put the descriptors into place, the last being the link, and execute; never returns."""
    link = worker.CHANNEL + len(descriptors) - 3
    try:
        error_pipe, control, *others = descriptors
        places = {0: null, 1: null, 2: error_pipe, worker.CONTROL: control}
        place(places | dict(enumerate(others, worker.CHANNEL)))
        afresh.give_up_rights(becomes_other=order.uid is not None)
        # Until it has loaded the devices it ends with its maker: nobody else knows of it.
        process.set_parent_death_signal()
        line = command(PROGRAM, str(link), runtime)
        os.execve(line[0], line, dict(os.environ))
    except OSError as error:
        with socket.socket(fileno=link) as failed:
            failed.send(json.dumps({"error": f"Python could not be executed: {error}"}).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
