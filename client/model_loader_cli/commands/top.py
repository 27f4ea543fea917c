"""`model-loader top`: the models of a running service, live."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit
from ..options import running_service_option
from ..steering.admin import seen
from ..steering.rows import Row, process_name, rows_of_all, rows_of_own, user_name
from ..terminal import add_row, console, finite, in_bytes, in_seconds, safe, styled, table
from .ps import DIGEST_LENGTH, ID_LENGTH

EPILOG = """\b
Examples:
  model-loader top
  model-loader top --sort memory --interval 5
  model-loader top --count 1
  model-loader top --json | jq '.models[0].model_id'
\b
Ctrl-C ends it. Where the output is no terminal, each look is a table of its own.
"""
SORTS: dict[str, Callable[[Row], float]] = {
    "cpu": lambda row: float(row["cpu_percent"]),
    "memory": lambda row: float(row["memory_bytes"]),
    "calls": lambda row: float(row["calls_per_second"]),
    "age": lambda row: float(row["age_seconds"]),
}


@click.command(epilog=EPILOG, short_help="Watch the models in a running service.")
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    default="cpu",
    show_default=True,
    help="What the first rows have most of.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line: one each look.")
@running_service_option
def top(address: str | None, sort: str, interval: float, count: int | None, as_json: bool) -> int:
    """Watch what the models of the running service use; an administrator sees everybody's.

    CPU is the share of one core, and calls are those of a second, since the look before.
    """
    with (
        seen(address) as (place, connection, admin),
        _showing(plain=as_json) as show,
    ):
        before: dict[str, Row] = {}
        looked = 0.0
        for look in itertools.count(1):
            if connection is not None:
                rows = rows_of_own(connection)
            else:
                rows = rows_of_all(admin.List(pb.ListRequest()))
            now = time.monotonic()
            add_rates(rows, before, now - looked)
            rows.sort(key=SORTS[sort], reverse=True)
            if as_json:
                said = {"unix_seconds": time.time(), "service": str(place), "models": rows}
                sys.stdout.write(json.dumps(finite(said), allow_nan=False) + "\n")
                sys.stdout.flush()
            else:
                show(_view(rows, str(place), with_user=admin is not None))
            before, looked = {row["model_id"]: row for row in rows}, now
            if look == count:
                break
            time.sleep(interval)
    return Exit.OK


@contextmanager
def _showing(*, plain: bool) -> Iterator[Callable[[Group], None]]:
    """Give what shows a view: in the place of the last one on a terminal, else below it."""
    screen = console()
    if plain or not screen.is_terminal:
        yield screen.print
        return
    with Live(console=screen, auto_refresh=False, screen=True) as live:
        yield partial(live.update, refresh=True)


def add_rates(rows: Sequence[Row], before: dict[str, Row], seconds: float) -> None:
    """Add what each model has used since the look before; zeros for one that is new."""
    for row in rows:
        last = before.get(row["model_id"], row)
        row["cpu_percent"] = 100 * max(row["cpu_seconds"] - last["cpu_seconds"], 0) / seconds
        row["calls_per_second"] = max(row["calls"] - last["calls"], 0) / seconds


def _view(rows: Sequence[Row], directory: str, *, with_user: bool) -> Group:
    workers = {row["worker_pid"]: row["memory_bytes"] for row in rows if row["worker_pid"]}
    head = (
        f"{time.strftime('%T')}  {len(rows)} models in {len(workers)} processes, "
        f"{in_bytes(sum(workers.values()))}, at {directory}"
    )
    return Group(styled(safe(head)), _listing(rows, with_user=with_user))


def _listing(rows: Sequence[Row], *, with_user: bool) -> Table:
    columns = ("id", "pid", "model", "origin", "cpu %", "memory", "calls/s", "calls", "age")
    numbers = ("pid", "cpu %", "memory", "calls/s", "calls", "age")
    listing = table(*(("user", *columns) if with_user else columns), right=numbers)
    for row in rows:
        cells = (
            row["model_id"][:ID_LENGTH],
            process_name(row),
            row["model"] or row["sha256"][:DIGEST_LENGTH],
            row["origin"],
            f"{row['cpu_percent']:.1f}",
            in_bytes(row["memory_bytes"]),
            f"{row['calls_per_second']:.1f}",
            row["calls"],
            in_seconds(row["age_seconds"]),
        )
        add_row(listing, *((user_name(row["user"]), *cells) if with_user else cells))
    return listing
