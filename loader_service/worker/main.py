"""A worker's life: go, lock down, receive the model, load it, serve."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from functools import partial

from loader_service.runtime.engine import Runtime
from loader_service.runtime.inspection import inspect_model
from loader_service.runtime.summary import to_json
from loader_service.sandbox import heap, lockdown, own_file, policy, process
from loader_service.sandbox.grants import NOTHING, Grants
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.resource_limits import LARGEST_LIMIT, ResourceLimits
from loader_service.worker.compiled_cache import BrokerCache
from loader_service.worker.control import BadMessage, Message, pack_fields, unpack_fields
from loader_service.worker.failing import failure_of
from loader_service.worker.hosting import Host
from loader_service.worker.opening import Devices, open_model
from loader_service.worker.orders import Go, Task
from loader_service.worker.receiving import BrokerGone, receive, receive_model
from loader_service.worker.saying import say, say_delegation, say_facts, say_failed
from loader_service.worker.serving import Serving, prepare_channel
from model_loader_wire.causes import Cause, Failure

CONTROL = 3
CHANNEL = 4
"""The first of them; a host has one for each model that it will ever hold."""


def run(
    runtime: Runtime,
    namespaces: lockdown.Outcome,
    inherited_bytes: int,
    channels: int,
    devices: Devices | None = None,
    grants: Grants = NOTHING,
) -> int:
    """Be a worker; returns the exit status. The descriptors are already in their places.

    `inherited_bytes` is what RLIMIT_DATA counts already: the zygote's memory, which is no model's.
    """
    control = socket.socket(fileno=CONTROL)
    ends = [socket.socket(fileno=CHANNEL + number) for number in range(channels)]
    try:
        return _live(runtime, control, ends, namespaces, inherited_bytes, devices, grants)
    except (BrokerGone, ConnectionError):
        return 0
    finally:
        # A socket object that goes while it is open asks for its name, to complain by it: that
        # system call would end a worker that ends well as one that broke its rules.
        for end in (control, *ends):
            end.detach()


def _live(
    runtime: Runtime,
    control: socket.socket,
    channels: Sequence[socket.socket],
    namespaces: lockdown.Outcome,
    inherited_bytes: int,
    devices: Devices | None,
    grants: Grants,
) -> int:
    _, payload = receive(control, Message.GO)
    go = Go.from_fields(unpack_fields(payload))
    for channel in channels:
        if go.task == Task.HOST:
            channel.setblocking(False)
        else:
            prepare_channel(channel)
    process.set_parent_death_signal()
    file = own_file.given()
    # In the host's own root they would be any other files.
    nodes = grants.device_nodes if Layer.EMPTY_ROOT in namespaces.entered else ()
    limits = ResourceLimits.for_worker(
        namespaces.entered,
        threads=go.threads,
        interpreters=2 * go.models,
        data_bytes=None if go.data_bytes is None else _above(inherited_bytes, go.data_bytes),
        cpu_seconds=go.cpu_seconds,
        raised=go.models,
        descriptors=policy.OPEN_DESCRIPTORS
        - 1
        + len(channels)
        + (file is not None)
        + policy.DESCRIPTORS_OF_A_NODE * len(nodes),
        device_tasks=grants.tasks,
        file_bytes=0 if file is None else file.bytes,
    )
    try:
        own = lockdown.lock_down(
            frozenset(lockdown.LOCK_DOWN_LAYERS),
            limits,
            granted=grants.system_calls,
            file=None if file is None else file.descriptor,
            nodes=nodes,
            with_threads=grants.afresh,
        )
    except lockdown.LockDownError as error:
        say_failed(control, Failure(Cause.UNSUPPORTED, str(error)))
        return 1
    missing = {**namespaces.refused, **own.refused}
    report = {"layers": sorted(namespaces.entered | own.entered), "missing": missing}
    say(control, pack_fields(Message.READY, report))
    if go.task == Task.REHEARSE:
        return 0
    if go.task == Task.HOST:
        Host(runtime, control, channels).run()
    try:
        model = receive_model(control, go.model_size)
        if go.task == Task.INSPECT:
            facts = to_json(inspect_model(model))
            say_facts(control, Message.INSPECTED, {"summary": json.dumps(facts)})
        cache = BrokerCache(control, go.cache_entry_bytes)
        if devices is not None and go.cache_entry_bytes:
            devices.cache = cache
        opened = open_model(runtime, model, go, devices)
        cache.close()
        say_facts(control, Message.LOADED, opened.declaration())
    except (BrokerGone, BadMessage, ConnectionError):
        raise
    except Exception as error:
        say_failed(control, failure_of(error, go.memory_bytes))
        return 0
    del model
    if go.task == Task.LOAD:
        heap.give_back_unused_end()
        told = None
        if devices is not None:
            told = devices.tell_of(opened.model, partial(say_delegation, control))
        Serving(opened.model, channels[0], control, go, told).run()
    return 0


def _above(inherited_bytes: int, data_bytes: int) -> int:
    """The resource limit that leaves `data_bytes` beside what was inherited."""
    return min(inherited_bytes + data_bytes, LARGEST_LIMIT)
