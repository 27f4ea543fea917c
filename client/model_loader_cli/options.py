"""Options that several commands have, said once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from model_loader import Limits
from model_loader._address import CREDENTIALS_FROM as VARIABLES
from model_loader_wire.limits import WITH_FRACTIONS

Command = TypeVar("Command", bound=Callable[..., Any])

RUNTIMES = ("auto", "litert", "tflite-runtime")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write a JSON document for scripts instead of text."
)
RUNNING = "MODEL_LOADER_ADDRESS, else a running model-loaderd"
OR_PRIVATE = f"{RUNNING}, else a private service"
"""Where commands look that start one if they must."""


def _directory_option(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--address",
        metavar="DIRECTORY",
        help=f"The socket directory of the service to use (default: {default}).",
    )


address_option = _directory_option(OR_PRIVATE)
running_address_option = _directory_option(RUNNING)
NETWORK = {
    "ca": ("--tls-ca", "FILE", "the authority that signed its certificate, in PEM"),
    "certificate": ("--tls-certificate", "FILE", "the certificate that says who you are, in PEM"),
    "key": ("--tls-key", "FILE", "that certificate's key, in PEM"),
    "token_file": ("--token-file", "FILE", "a file with the token that says who you are"),
}
"""Options for a service over the network, and what each is of."""
META = "model_loader_cli.credentials"


def service_option(command: Command) -> Command:
    """Add the option for a service, here or over the network, and those for the latter."""
    return _place_options(command, OR_PRIVATE)


def running_service_option(command: Command) -> Command:
    """Add the same for a command that starts no service."""
    return _place_options(command, RUNNING)


def _place_options(command: Command, default: str) -> Command:
    for name, (flag, what, text) in reversed(NETWORK.items()):
        variable = VARIABLES[name.removesuffix("_file")]
        command = click.option(
            flag,
            name,
            metavar=what,
            expose_value=False,
            callback=_keep,
            help=f"With --address tcp://HOST:PORT: {text} (default: {variable}).",
        )(command)
    return click.option(
        "--address",
        metavar="PLACE",
        help="The socket directory of the service to use, or tcp://HOST:PORT for one over the "
        f"network (default: {default}).",
    )(command)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta.setdefault(META, {})[parameter.name] = value


def credentials_given() -> dict[str, Any]:
    """Return what these options were given, as ``connect`` takes it; raises UsageError."""
    context = click.get_current_context(silent=True)
    given = dict(context.meta.get(META, {})) if context is not None else {}
    if (file := given.pop("token_file", None)) is not None:
        try:
            given["token"] = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise click.UsageError(f"--token-file: {file} cannot be read: {error}") from None
    return given


model_argument = click.argument(
    "model", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End the work, and the model's process, after so many seconds.",
)


def read_limits(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> Limits:
    """Read `NAME=VALUE` limits; wrong names and values end with a usage error."""
    numbers: dict[str, int | float] = {}
    for text in values:
        name, _, value = text.partition("=")
        name = name.replace("-", "_")
        try:
            numbers[name] = float(value) if name in WITH_FRACTIONS else int(value)
            Limits.from_values(numbers)
        except (TypeError, ValueError) as error:
            raise click.BadParameter(f"{text!r}: {error}", context, parameter) from None
    return Limits.from_values(numbers)


limit_option = click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_limits,
    help="Set a limit for this model, for example memory_bytes=200000000 or compute_seconds=2; "
    "a service that was named or is running allows only lower ones than its own. Repeatable.",
)
