"""`model-loader models`: the models that a service's operator approved, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..exits import Exit
from ..named import NAME_OF_A_VERSION, Checked, add_version, check_versions
from ..options import json_option, running_service_option
from ..service import running_service, service
from ..terminal import BAD, ON, add_row, console, in_bytes, print_json, safe, styled, table

EPILOG = """\b
Examples:
  model-loader models list
  model-loader models add digits digits.tflite --warm-up digits.npz --repository /srv/models
  model-loader models verify --repository /srv/models
\b
A program loads one with loader.load_by_name("digits"). The repository is a folder; the setting of
model-loaderd that names it is `repository`.
"""
DIGEST_LENGTH = 12

repository_option = click.option(
    "--repository",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MODEL_LOADER_SERVICE_REPOSITORY",
    required=True,
    help="The folder of approved models (default: MODEL_LOADER_SERVICE_REPOSITORY).",
)


@click.group(epilog=EPILOG, short_help="List, add and verify models that are loaded by name.")
def models() -> None:
    """List the models that can be loaded by name; add and verify them in the repository."""


@models.command("list", epilog=EPILOG, short_help="List the models that can be loaded by name.")
@running_service_option
@json_option
def list_(address: str | None, as_json: bool) -> int:
    """List the models that the running service serves by name: every version that runs."""
    with running_service(address) as (directory, connection):
        found = connection.named_models()
    if as_json:
        rows = [
            {"name": row.name, "version": row.version, "sha256": row.sha256, "size": row.size}
            for row in found
        ]
        print_json({"service": str(directory), "models": rows})
        return Exit.OK
    screen = console()
    if not found:
        screen.print(f"the service at {safe(directory)} serves no models by name", soft_wrap=True)
        return Exit.OK
    listing = table("name", "version", "size", "SHA-256", right=("version", "size"))
    for row in found:
        digest = row.sha256[:DIGEST_LENGTH]
        add_row(listing, row.name, row.version, in_bytes(row.size), digest)
    screen.print(listing)
    return Exit.OK


@models.command(epilog=EPILOG, short_help="Add a version of a model to the repository.")
@click.argument("name")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--warm-up",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Inputs to try it on, an .npz with an array for each input.",
)
@click.option(
    "--version",
    type=click.IntRange(1, 10**18 - 1),
    metavar="NUMBER",
    help="The version's number (default: one more than the highest).",
)
@repository_option
@json_option
def add(
    name: str,
    model: Path,
    warm_up: Path | None,
    version: int | None,
    repository: Path,
    as_json: bool,
) -> int:
    """Try a model in a sandbox, and put it into the repository as a new version of NAME.

    A running service takes it up by itself. What does not load, or does not run on the inputs, is
    not added.
    """
    with service(None, private=True) as connection:
        checked = add_version(connection, repository, name, model, warm_up, version)
    if as_json:
        print_json(_values(checked))
    else:
        added = f"{checked.name}:{checked.version}"
        console().print(f"{safe(added)} added, SHA-256 {checked.sha256}", soft_wrap=True)
    return Exit.OK


@models.command(epilog=EPILOG, short_help="Try every model of the repository.")
@click.argument("names", metavar="[NAME[:VERSION]]...", nargs=-1)
@repository_option
@json_option
def verify(names: tuple[str, ...], repository: Path, as_json: bool) -> int:
    """Compare every version with its pin, and load and run it in a sandbox, as the service does.

    The exit status is 1 if one of them would not be served.
    """
    for name in names:
        if NAME_OF_A_VERSION.fullmatch(name) is None:
            raise click.BadParameter(f"{name!r} is not NAME or NAME:VERSION")
    with service(None, private=True) as connection:
        found = list(check_versions(connection, repository, names))
    if as_json:
        print_json({"repository": str(repository), "models": [_values(item) for item in found]})
    else:
        listing = table("name", "version", "", right=("version",))
        for item in found:
            outcome = (item.reason, BAD) if item.reason else ("serves", ON)
            add_row(listing, item.name, item.version, styled(outcome))
        console().print(listing)
    return Exit.FAILED if any(item.reason for item in found) else Exit.OK


def _values(checked: Checked) -> dict[str, Any]:
    return {
        "name": checked.name,
        "version": checked.version,
        "sha256": checked.sha256,
        "serves": not checked.reason,
        "reason": checked.reason,
    }
