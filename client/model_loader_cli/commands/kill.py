"""`model-loader kill`: ending models of a running service."""

from __future__ import annotations

import pwd

import click

from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import Exit
from ..options import json_option, running_address_option
from ..steering.admin import Stub, administered
from ..terminal import console, print_json

EPILOG = """\b
Examples:
  model-loader kill 3f2a9c01
  model-loader kill --user alice
  model-loader kill --user alice --origin https://a.example
\b
The programs get an OperationError with the reason "killed". They may load again: limits and
policies are what keeps somebody out.
"""


@click.command(epilog=EPILOG, short_help="End models of a running service.")
@click.argument("model_id", metavar="[ID]", required=False)
@click.option(
    "--user",
    metavar="USER",
    help="All models of this user, by name or uid, or of a client of the network (dns:NAME).",
)
@click.option("--origin", metavar="ORIGIN", help="With --user: only those of this origin.")
@running_address_option
@json_option
def kill(
    address: str | None, model_id: str | None, user: str | None, origin: str | None, as_json: bool
) -> int:
    """End a model, or all of a user or an origin, whatever they are doing.

    ID is a model's id, or the beginning of one, as `ps` shows it.
    """
    if (model_id is None) == (user is None):
        raise click.UsageError("give the ID of a model, or --user")
    if origin is not None and user is None:
        raise click.UsageError("an origin is a user's: give --user, too")
    with administered(address) as (_, admin):
        if model_id is not None:
            request = pb.KillRequest(model_id=_whole(admin, model_id))
        else:
            request = _of_user(user or "", origin)
        count = admin.Kill(request).models
    if as_json:
        print_json({"models": count})
    else:
        console().print(f"{count} models were ended" if count != 1 else "1 model was ended")
    return Exit.OK


def _whole(admin: Stub, beginning: str) -> str:
    """Find the one id that begins so."""
    ids = [row.model.model_id for row in admin.List(pb.ListRequest()).rows]
    found = [model_id for model_id in ids if model_id.startswith(beginning)]
    if len(found) != 1 or not beginning:
        what = "no model has" if not found else f"{len(found)} models have"
        raise click.BadParameter(
            f"{what} an id that begins with {beginning!r}; see model-loader ps"
        )
    return str(found[0])


def _of_user(user: str, origin: str | None) -> pb.KillRequest:
    if ":" in user:  # no user of a machine is called so: a client of the network
        return pb.KillRequest(client=user, origin=origin)
    return pb.KillRequest(user=_uid(user), origin=origin)


def _uid(user: str) -> int:
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.BadParameter(f"there is no user {user!r}") from None
