"""`model-loader ps`: the models that a running service holds."""

from __future__ import annotations

from collections.abc import Sequence

import click

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit, NoService
from ..options import json_option, running_service_option
from ..steering.admin import seen
from ..steering.rows import Row, process_name, rows_of_all, rows_of_own, user_name
from ..terminal import add_row, console, in_bytes, in_seconds, print_json, safe, table

EPILOG = """\b
Examples:
  model-loader ps
  model-loader ps --json | jq '.models[].worker_pid'
\b
Programs without a running model-loaderd have private services, which are not listed here.
"""

DIGEST_LENGTH = 12
ID_LENGTH = 8
"""So much of a model's id is shown; `kill` takes it."""


@click.command(epilog=EPILOG, short_help="List the models in a running service.")
@running_service_option
@json_option
def ps(address: str | None, as_json: bool) -> int:
    """List the models in the running service: this user's, or, for an administrator, everybody's.

    An administrator is root, or the user who runs the service. It never starts a service: where
    none runs, it says so and ends with exit status 3.
    """
    try:
        with seen(address) as (place, connection, admin):
            if connection is not None:
                rows = rows_of_own(connection)
            else:
                rows = rows_of_all(admin.List(pb.ListRequest()))
    except NoService:
        if as_json:
            print_json({"service": None, "models": []})
        raise
    if as_json:
        print_json({"service": str(place), "models": rows})
        return Exit.OK
    _show(rows, str(place), with_user=admin is not None)
    return Exit.OK


def _show(rows: Sequence[Row], directory: str, *, with_user: bool) -> None:
    screen = console()
    if not rows:
        screen.print(f"no models are loaded in the service at {safe(directory)}", soft_wrap=True)
        return
    columns: tuple[str, ...] = (
        "id",
        "pid",
        "model",
        "origin",
        "layers",
        "memory",
        "cpu",
        "calls",
        "age",
    )
    numbers = ("pid", "layers", "memory", "cpu", "calls", "age")
    if with_user:
        columns = ("user", *columns)
    listing = table(*columns, right=numbers)
    for row in sorted(rows, key=lambda row: (str(row["user"]), row["origin"], -row["age_seconds"])):
        on, missing = len(row["layers"]), len(row["missing_layers"])
        cells = (
            row["model_id"][:ID_LENGTH],
            process_name(row),
            row["model"] or row["sha256"][:DIGEST_LENGTH],
            row["origin"],
            f"{on} of {on + missing}" if missing else f"all {on}",
            in_bytes(row["memory_bytes"]),
            in_seconds(row["cpu_seconds"]),
            row["calls"],
            in_seconds(row["age_seconds"]),
        )
        add_row(listing, *((user_name(row["user"]), *cells) if with_user else cells))
    screen.print(listing)
    for device, grants in sorted(_granted(rows).items()):
        said = f"{device} has in its workers: {'; '.join(grants)}"
        screen.print(safe(said), soft_wrap=True)


def _granted(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What devices of these models were granted beyond the sandbox of every worker."""
    return {name: grants for row in rows for name, grants in row["devices"].items() if grants}
