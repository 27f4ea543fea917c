"""`model-loader drain`: letting a running service come to its end gently."""

from __future__ import annotations

import time

import click
import grpc

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit
from ..options import json_option, running_address_option
from ..steering.admin import Stub, administered
from ..terminal import console, print_json

EPILOG = """\b
Examples:
  model-loader drain
  model-loader drain --seconds 300 --wait
  model-loader drain --cancel
"""
LOOK_SECONDS = 0.2


@click.command(epilog=EPILOG, short_help="Let a running service end gently.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long models may live on; then they are ended.",
)
@click.option("--cancel", is_flag=True, help="Call a drain off instead.")
@click.option("--wait", is_flag=True, help="Return when the service has ended.")
@running_address_option
@json_option
def drain(address: str | None, seconds: float, cancel: bool, wait: bool, as_json: bool) -> int:
    """Have the service take no more models, and end when those that it has are gone."""
    if cancel and wait:
        raise click.UsageError("--cancel has nothing to wait for")
    with administered(address) as (directory, admin):
        left = admin.Drain(pb.DrainRequest(seconds=seconds, cancel=cancel)).models
        if wait:
            _wait_for_the_end(admin)
    if as_json:
        print_json({"service": str(directory), "models": left, "draining": not cancel})
        return Exit.OK
    if cancel:
        said = f"the service takes models again, and has {left}"
    elif wait:
        said = "the service has ended"
    else:
        said = (
            f"the service takes no more models; it ends when {left} have gone, or in {seconds:g} s"
        )
    console().print(said, soft_wrap=True)
    return Exit.OK


def _wait_for_the_end(admin: Stub) -> None:
    """Wait until the service does not answer any more."""
    try:
        while True:
            time.sleep(LOOK_SECONDS)
            admin.Status(pb.StatusRequest())
    except grpc.RpcError:
        return
