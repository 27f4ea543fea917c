"""A worker's life: go, lock down, receive the model, load it, serve."""

from __future__ import annotations

import json
import os
import socket

from loader_service.runtime.engine import Runtime
from loader_service.runtime.flatbuffer import MalformedModel
from loader_service.runtime.inspection import inspect_model
from loader_service.runtime.summary import to_json
from loader_service.runtime.verifier.verify import verify
from loader_service.sandbox import lockdown, process
from loader_service.sandbox.resource_limits import ResourceLimits
from loader_service.worker.control import (
    LONGEST_FROM_WORKER,
    BadMessage,
    Message,
    pack,
    pack_fields,
    unpack_fields,
)
from loader_service.worker.failing import Refused, failure_of
from loader_service.worker.orders import Go, Task
from loader_service.worker.receiving import BrokerGone, receive, receive_model
from loader_service.worker.serving import Serving, prepare_channel
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import model_to_values
from model_loader_wire.frames import pack_failure

CONTROL = 3
CHANNEL = 4
LARGEST_LIMIT = 2**63 - 1


def run(runtime: Runtime, namespaces: lockdown.Outcome, inherited_bytes: int) -> int:
    """Be a worker; returns the exit status. The five descriptors are already in their places.

    `inherited_bytes` is what RLIMIT_DATA counts already: the zygote's memory, which is no model's.
    """
    control = socket.socket(fileno=CONTROL)
    channel = socket.socket(fileno=CHANNEL)
    try:
        return _live(runtime, control, channel, namespaces, inherited_bytes)
    except (BrokerGone, ConnectionError):
        return 0
    finally:
        # A socket object that goes while it is open asks for its name, to complain by it: that
        # system call would end a worker that ends well as one that broke its rules.
        control.detach()
        channel.detach()


def _live(
    runtime: Runtime,
    control: socket.socket,
    channel: socket.socket,
    namespaces: lockdown.Outcome,
    inherited_bytes: int,
) -> int:
    _, payload = receive(control, Message.GO)
    go = Go.from_fields(unpack_fields(payload))
    prepare_channel(channel)
    process.set_parent_death_signal()
    limits = ResourceLimits.for_worker(
        namespaces.entered,
        threads=go.threads,
        data_bytes=None if go.data_bytes is None else _above(inherited_bytes, go.data_bytes),
        cpu_seconds=go.cpu_seconds,
    )
    try:
        own = lockdown.lock_down(frozenset(lockdown.LOCK_DOWN_LAYERS), limits)
    except lockdown.LockDownError as error:
        _say_failed(control, Failure(Cause.UNSUPPORTED, str(error)))
        return 1
    missing = {**namespaces.refused, **own.refused}
    report = {"layers": sorted(namespaces.entered | own.entered), "missing": missing}
    _send(control, pack_fields(Message.READY, report))
    if go.task == Task.REHEARSE:
        return 0
    try:
        model = receive_model(control, go.model_size)
        if go.task == Task.INSPECT:
            facts = to_json(inspect_model(model))
            _send_facts(control, Message.INSPECTED, {"summary": json.dumps(facts)})
        verify(model, operators=go.operators, memory_bytes=go.memory_bytes or None)
        loaded = runtime.load(model, threads=go.threads, memory_bytes=go.data_bytes)
        _send_facts(control, Message.LOADED, model_to_values(loaded.description))
    except MalformedModel as error:
        _say_failed(control, Failure(Cause.INVALID_MODEL, str(error)))
        return 0
    except (BrokerGone, BadMessage, ConnectionError):
        raise
    except Exception as error:
        _say_failed(control, failure_of(error, go.memory_bytes))
        return 0
    del model
    if go.task == Task.LOAD:
        Serving(loaded, channel, control, go).run()
    return 0


def _above(inherited_bytes: int, data_bytes: int) -> int:
    """The resource limit that leaves `data_bytes` beside what was inherited."""
    return min(inherited_bytes + data_bytes, LARGEST_LIMIT)


def _say_failed(control: socket.socket, failure: Failure) -> None:
    _send(control, pack(Message.FAILED, pack_failure(failure)))


def _send_facts(control: socket.socket, kind: Message, fields: dict[str, object]) -> None:
    """Send a message whose length depends on the model; raises Refused if it is too long."""
    message = pack_fields(kind, fields)
    if len(message) > LONGEST_FROM_WORKER:
        raise Refused(
            Cause.UNSUPPORTED,
            f"to say what the model is takes {len(message)} bytes, more than {LONGEST_FROM_WORKER}",
        )
    _send(control, message)


def _send(control: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(control.fileno(), view) :]
