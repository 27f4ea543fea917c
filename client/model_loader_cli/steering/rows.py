"""The models in a service, as `ps` and `top` show them: plain values, whoever asked for them."""

from __future__ import annotations

import os
import pwd
from typing import Any

import model_loader as ml
from model_loader_wire.v1 import admin_pb2 as admin_pb

Row = dict[str, Any]
"""One model, as ``--json`` has it."""


def rows_of_own(connection: ml.Connection) -> list[Row]:
    """Take what `Connection.models` lists; over the network no user of this machine is meant."""
    user = os.geteuid() if connection.address.startswith("unix:") else None
    return [
        {
            "user": user,
            "model_id": row.model_id,
            "origin": row.origin,
            "model": row.label,
            "sha256": row.sha256,
            "worker_pid": row.worker_pid,
            "shared": row.isolation.shared,
            "layers": list(row.isolation.layers),
            "missing_layers": dict(row.isolation.missing),
            "memory_held_by": row.isolation.memory_held_by,
            "memory_bytes": row.memory_bytes,
            "cpu_seconds": row.cpu_seconds,
            "calls": row.calls,
            "age_seconds": row.age_seconds,
            "runtime": row.runtime,
            "devices": {name: list(grants) for name, grants in row.isolation.devices.items()},
            "limits": row.limits.set_values(),
        }
        for row in connection.models()
    ]


def process_name(row: Row) -> str:
    """The worker's process id; a parked model has none."""
    return str(row["worker_pid"] or "parked")


def rows_of_all(reply: admin_pb.ListReply) -> list[Row]:
    """Take what the admin service lists."""
    return [
        {
            "user": row.client or row.user,
            "model_id": row.model.model_id,
            "origin": row.model.origin,
            "model": row.model.label,
            "sha256": row.model.sha256.hex(),
            "worker_pid": row.model.worker_pid,
            "shared": row.model.isolation.shared,
            "layers": list(row.model.isolation.layers),
            "missing_layers": {item.layer: item.reason for item in row.model.isolation.missing},
            "memory_held_by": row.model.isolation.memory_held_by,
            "memory_bytes": row.model.memory_bytes,
            "cpu_seconds": row.model.cpu_seconds,
            "calls": row.model.calls,
            "age_seconds": row.model.age_seconds,
            "runtime": row.model.runtime,
            "devices": {item.device: list(item.grants) for item in row.model.isolation.devices},
            "limits": {field.name: value for field, value in row.model.limits.ListFields()},
        }
        for row in reply.rows
    ]


def user_name(user: int | str) -> str:
    """The name of a user, or the number where there is none; clients of the network have names."""
    if isinstance(user, str):
        return user
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
