"""`model-loader events`: what happens in the running service."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click
from rich.console import Console

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit
from ..options import running_address_option
from ..steering.admin import administered
from ..terminal import BAD, DIM, OFF, console, finite, safe, styled

EPILOG = """\b
Examples:
  model-loader events
  model-loader events --follow
  model-loader events --follow --json | jq 'select(.kind == "model-lost")'
\b
Only root and the user who runs the service see its events.
"""
STYLES = {"debug": DIM, "info": "", "warning": OFF, "error": BAD}


@click.command(epilog=EPILOG, short_help="Show what happens in a running service.")
@click.option("--follow", "-f", is_flag=True, help="Stay, and show what happens from now on.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="With --follow: also sessions, loads that begin, and each relayed call.",
)
@running_address_option
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line.")
def events(address: str | None, follow: bool, everything: bool, as_json: bool) -> int:
    """Show the latest events of the running service: loads, losses, limits that were reached.

    Calls on direct channels do not pass the service, and are no events.
    """
    if everything and not follow:
        raise click.UsageError("--all is for events to come: give --follow, too")
    screen = console()
    request = pb.EventsRequest(follow=follow, all=everything)
    with administered(address) as (_, admin):
        for event in admin.Events(request):
            if as_json:
                sys.stdout.write(json.dumps(finite(_values(event)), allow_nan=False) + "\n")
                sys.stdout.flush()
            else:
                _show(screen, event)
    return Exit.OK


def _values(event: pb.Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "unix_seconds": event.unix_seconds,
        "kind": event.kind,
        "level": event.level,
        "request": event.request,
        "left_out": event.left_out,
        "facts": _facts(event),
    }


def _facts(event: pb.Event) -> dict[str, Any]:
    return {
        fact.name: getattr(fact, kind)
        for fact in event.facts
        if (kind := fact.WhichOneof("value")) is not None
    }


def _show(screen: Console, event: pb.Event) -> None:
    if event.left_out:
        screen.print(styled((f"({event.left_out} events were left out here)", OFF)))
    when = datetime.fromtimestamp(event.unix_seconds).strftime("%F %T")
    facts = _facts(event)
    message = facts.pop("message", "")
    words = [f"{name}={_short(value)}" for name, value in facts.items()]
    line = " ".join([*words, f"({message})"] if message else words)
    screen.print(
        styled(
            (when, DIM), f"  {safe(event.kind):<22} ", (safe(line), STYLES.get(event.level, ""))
        ),
        soft_wrap=True,
    )


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return repr(text) if " " in text or not text else text
