"""`model-loader limits`: the limits of a running service, shown and set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit
from ..options import json_option, running_address_option
from ..steering.admin import administered, seen
from ..terminal import DIM, OFF, add_row, console, print_json, safe, styled, table

EPILOG = """\b
Examples:
  model-loader limits show
  model-loader limits set models_per_origin=4 compute_seconds=2
  model-loader limits set --policy vision memory_bytes=536870912
\b
What is set holds for the next loads, until the service ends or reads its configuration again.
"""
NONE = "none"
POLICY = "service"
"""The name of what holds for users without a policy of their own."""

policy_option = click.option(
    "--policy",
    metavar="NAME",
    default=POLICY,
    show_default=True,
    help="Whose limits: those of a policy of the configuration, or the service's own.",
)


@click.group(epilog=EPILOG, short_help="Show and set the limits of a running service.")
def limits() -> None:
    """Show the limits of the running service, and give them other values while it runs."""


@limits.command(epilog=EPILOG, short_help="Show the limits in force.")
@policy_option
@running_address_option
@json_option
def show(address: str | None, policy: str, as_json: bool) -> int:
    """Show the limits in force; a user who is no administrator sees those of their own models."""
    with seen(address) as (place, connection, admin):
        if connection is not None:
            own = connection.limits.set_values()
            rows = [_row(name, value, value, settable=False) for name, value in own.items()]
            policies = []
        else:
            reply = admin.ShowLimits(pb.ShowLimitsRequest(policy=policy))
            rows, policies = _rows_of(reply), list(reply.policies)
    if as_json:
        print_json({"service": str(place), "policies": policies, "limits": rows})
    else:
        _show(rows, policies)
    return Exit.OK


@limits.command("set", epilog=EPILOG, short_help="Set limits while the service runs.")
@click.argument("values", metavar="NAME=VALUE...", nargs=-1, required=True)
@policy_option
@running_address_option
@json_option
def set_(address: str | None, values: Sequence[str], policy: str, as_json: bool) -> int:
    """Set limits, all of them or none; "none" is no limit.

    Models that are loaded already keep the limits that they have. Only root and the user who runs
    the service can.
    """
    wanted = [_value_of(text) for text in values]
    with administered(address) as (directory, admin):
        reply = admin.SetLimits(pb.SetLimitsRequest(policy=policy, limits=wanted))
    names = {value.name for value in wanted}
    rows = [row for row in _rows_of(reply) if row["name"] in names]
    if as_json:
        print_json({"service": str(directory), "limits": rows})
    else:
        _show(rows, [])
    return Exit.OK


def _value_of(text: str) -> pb.LimitValue:
    """Read `NAME=VALUE`; raises BadParameter."""
    name, equals, value = text.partition("=")
    name = name.replace("-", "_")
    if equals and value == NONE:
        return pb.LimitValue(name=name)
    try:
        return pb.LimitValue(name=name, value=float(value))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not NAME=NUMBER or NAME={NONE}") from None


def _rows_of(reply: pb.LimitList) -> list[dict[str, Any]]:
    return [
        _row(
            row.name,
            row.value if row.HasField("value") else None,
            row.at_start if row.HasField("at_start") else None,
            settable=row.settable,
        )
        for row in reply.limits
    ]


def _row(
    name: str, value: float | None, at_start: float | None, *, settable: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "value": _plain(value),
        "at_start": _plain(at_start),
        "settable": settable,
    }


def _plain(value: float | None) -> int | float | None:
    return int(value) if value is not None and value == int(value) else value


def _show(rows: Sequence[dict[str, Any]], policies: Sequence[str]) -> None:
    screen = console()
    listing = table("limit", "value", "", right=("value",))
    for row in rows:
        remark = styled("")
        if row["value"] != row["at_start"]:
            remark = styled((f"started with {_said(row['at_start'])}", OFF))
        elif not row["settable"]:
            remark = styled(("only set at the start", DIM))
        add_row(listing, row["name"], _said(row["value"]), remark)
    screen.print(listing)
    if len(policies) > 1:
        screen.print(f"policies: {safe(', '.join(policies))}", soft_wrap=True)


def _said(value: int | float | None) -> str:
    return NONE if value is None else f"{value:,}"
