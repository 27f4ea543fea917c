"""Models and workers as messages: what became of one, what it uses, how it is isolated."""

from __future__ import annotations

import time

from loader_service.broker.messages import failure_to_message, limits_to_message
from loader_service.broker.model import Model
from loader_service.broker.named_models import Served
from loader_service.broker.parkable import Home
from model_loader_wire.v1 import model_loader_pb2 as pb


def isolation_to_message(
    worker: Home, memory_held_by: str, *, coarse: bool = False
) -> pb.Isolation:
    """Write which layers hold a worker; `coarse` leaves out which devices it has."""
    devices = {} if coarse else worker.devices
    return pb.Isolation(
        layers=worker.layers,
        missing=[
            pb.MissingLayer(layer=layer, reason=reason) for layer, reason in worker.missing.items()
        ],
        memory_held_by=memory_held_by,
        worker_pid=worker.pid,
        shared=worker.shared,
        devices=[
            pb.DeviceGrants(device=device, grants=grants) for device, grants in devices.items()
        ],
    )


def row_to_message(model: Model, memory_held_by: str, *, coarse: bool = False) -> pb.ModelRow:
    """Write a model's row of a list; `coarse` as for its isolation."""
    usage = model.worker.usage()
    return pb.ModelRow(
        model_id=model.model_id,
        origin=model.origin,
        label=model.label,
        sha256=model.sha256,
        worker_pid=model.worker.pid,
        isolation=isolation_to_message(model.worker, memory_held_by, coarse=coarse),
        memory_bytes=usage.memory_bytes,
        cpu_seconds=usage.cpu_seconds,
        calls=model.worker.calls,
        age_seconds=time.monotonic() - model.loaded_at,
        runtime=model.description.runtime,
        limits=limits_to_message(model.limits),
    )


def named_to_message(served: Served) -> pb.NamedModel:
    """Write a model of the repository."""
    return pb.NamedModel(
        name=served.name, version=served.number, sha256=served.sha256, size=served.content.size
    )


def state_to_message(model: Model) -> pb.ModelState:
    """Write what became of a model."""
    lost = model.lost
    return pb.ModelState(
        model_id=model.model_id,
        lost=lost is not None,
        detail=None if lost is None else failure_to_message(lost),
    )
