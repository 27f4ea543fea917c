"""`model-loader ps`: the models that a running service holds for this user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..exits import Exit, NoService
from ..options import address_option, json_option
from ..service import running_service
from ..terminal import add_row, console, in_bytes, in_seconds, print_json, safe, table

EPILOG = """\b
Examples:
  model-loader ps
  model-loader ps --json | jq '.models[].worker_pid'
\b
Programs without a running model-loaderd have private services, which are not listed here.
"""

DIGEST_LENGTH = 12

Row = Any
"""What `Connection.models` lists."""


@click.command(epilog=EPILOG, short_help="List the models in a running service.")
@address_option
@json_option
def ps(address: str | None, as_json: bool) -> int:
    """List the models of this user in the running service.

    It never starts a service: where none runs, it says so and ends with exit status 3.
    """
    try:
        with running_service(address) as (directory, connection):
            rows = connection.models()
    except NoService:
        if as_json:
            print_json({"service": None, "models": []})
        raise
    if as_json:
        print_json({"service": str(directory), "models": [_values(row) for row in rows]})
        return Exit.OK
    _show(rows, str(directory))
    return Exit.OK


def _values(row: Row) -> dict[str, Any]:
    return {
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
        "limits": row.limits.set_values(),
    }


def _show(rows: Sequence[Row], directory: str) -> None:
    screen = console()
    if not rows:
        screen.print(f"no models are loaded in the service at {safe(directory)}", soft_wrap=True)
        return
    columns = ("pid", "model", "origin", "layers", "memory", "cpu", "calls", "age")
    numbers = ("pid", "layers", "memory", "cpu", "calls", "age")
    listing = table(*columns, right=numbers)
    for row in sorted(rows, key=lambda row: (row.origin, -row.age_seconds)):
        on, missing = len(row.isolation.layers), len(row.isolation.missing)
        add_row(
            listing,
            row.worker_pid,
            row.label or row.sha256[:DIGEST_LENGTH],
            row.origin,
            f"{on} of {on + missing}" if missing else f"all {on}",
            in_bytes(row.memory_bytes),
            in_seconds(row.cpu_seconds),
            row.calls,
            in_seconds(row.age_seconds),
        )
    screen.print(listing)
