"""`model-loader status`: how the running service is."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

import model_loader as ml
from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit, NoService
from ..options import json_option, running_service_option
from ..service import Place
from ..steering.admin import seen
from ..steering.rows import user_name
from ..terminal import (
    DIM,
    OFF,
    ON,
    add_row,
    console,
    in_bytes,
    in_seconds,
    print_facts,
    print_json,
    safe,
    styled,
    table,
)

EPILOG = """\b
Examples:
  model-loader status
  model-loader status --json | jq .ready
\b
Root, and the user who runs the service, see all of it; other users what concerns them.
"""


@click.command(epilog=EPILOG, short_help="Tell how the running service is.")
@running_service_option
@json_option
def status(address: str | None, as_json: bool) -> int:
    """Tell how the running service is, and who uses how much of it."""
    try:
        with seen(address) as (place, connection, admin):
            if connection is not None:
                facts = _of_user(place, connection)
            else:
                facts = _of_all(admin.Status(pb.StatusRequest()))
    except NoService:
        if as_json:
            print_json({"service": None})
        raise
    if as_json:
        print_json(facts)
    elif admin is None:
        _show_user(facts)
    else:
        _show_all(facts)
    return Exit.OK


def _of_user(directory: Place, connection: ml.Connection) -> dict[str, Any]:
    return {
        "service": str(directory),
        "version": connection.service_version,
        "models": len(connection.models()),
        "limits": connection.limits.set_values(),
    }


def _of_all(reply: pb.StatusReply) -> dict[str, Any]:
    return {
        "service": reply.directory,
        "version": reply.version,
        "pid": reply.pid,
        "uid": reply.uid,
        "runtime": reply.runtime,
        "uptime_seconds": reply.uptime_seconds,
        "ready": reply.ready,
        "draining": reply.draining,
        "isolation": reply.isolation,
        "layers": list(reply.layers),
        "missing_layers": {item.layer: item.reason for item in reply.missing},
        "memory_held_by": reply.memory_held_by,
        "devices": [
            {"name": item.device, "tested": item.tested, "disabled": item.disabled}
            for item in reply.devices
        ],
        "total_memory_bytes": reply.total_memory_bytes,
        "workers": reply.workers,
        "service_memory_bytes": reply.service_memory_bytes,
        "service_cpu_seconds": reply.service_cpu_seconds,
        "open_descriptors": reply.open_descriptors,
        "users": [
            {
                "user": user.client or user.user,
                "sessions": user.sessions,
                "models": user.models,
                "loading": user.loading,
                "memory_bytes": user.memory_bytes,
                "cpu_seconds": user.cpu_seconds,
            }
            for user in reply.users
        ],
    }


def _shown_device(device: dict[str, Any]) -> Text:
    if device["disabled"]:
        return styled((safe(device["name"]), OFF), safe(f", disabled: {device['disabled']}"))
    if not device["tested"]:
        return styled(safe(device["name"]), (", not tested yet", DIM))
    return styled((safe(device["name"]), ON))


def _show_user(facts: dict[str, Any]) -> None:
    print_facts(
        console(),
        (
            ("service", f"version {facts['version']} at {facts['service']}"),
            ("models", f"{facts['models']} of this user"),
        ),
    )


def _show_all(facts: dict[str, Any]) -> None:
    screen = console()
    state = "draining" if facts["draining"] else "ready" if facts["ready"] else "not ready"
    on, missing = len(facts["layers"]), facts["missing_layers"]
    layers = (
        f"{on} of {on + len(missing)}, without {', '.join(missing)}" if missing else f"all {on}"
    )
    memory = sum(user["memory_bytes"] for user in facts["users"])
    print_facts(
        screen,
        (
            ("service", f"version {facts['version']} at {facts['service']}"),
            ("state", styled((state, ON if state == "ready" else OFF))),
            ("process", f"{facts['pid']} of {user_name(facts['uid'])}"),
            ("up", in_seconds(facts["uptime_seconds"])),
            ("runtime", facts["runtime"]),
            ("a process for", f"each {facts['isolation']}"),
            ("layers", layers),
            *(("device", _shown_device(device)) for device in facts["devices"]),
            (
                "memory",
                f"{in_bytes(memory)} of {in_bytes(facts['total_memory_bytes'])} by models (held by "
                f"{facts['memory_held_by']}), {in_bytes(facts['service_memory_bytes'])} by the "
                "service",
            ),
            ("workers", facts["workers"]),
            ("processor time", f"{in_seconds(facts['service_cpu_seconds'])} of the service itself"),
            ("descriptors", f"{facts['open_descriptors']} open"),
        ),
    )
    if not facts["users"]:
        screen.print(safe("  nobody has a session"))
        return
    numbers = ("sessions", "models", "loading", "memory", "cpu")
    listing = table("user", *numbers, right=numbers)
    for user in facts["users"]:
        add_row(
            listing,
            user_name(user["user"]),
            user["sessions"],
            user["models"],
            user["loading"],
            in_bytes(user["memory_bytes"]),
            in_seconds(user["cpu_seconds"]),
        )
    screen.print()
    screen.print(listing)
