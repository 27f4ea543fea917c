"""Options that several commands have, said once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from model_loader import Limits

RUNTIMES = ("auto", "litert", "tflite-runtime")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write a JSON document for scripts instead of text."
)
address_option = click.option(
    "--address",
    metavar="DIRECTORY",
    help="The socket directory of the service to use (default: MODEL_LOADER_ADDRESS, else a "
    "running model-loaderd, else a private service).",
)
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
            numbers[name] = float(value) if name.endswith("_seconds") else int(value)
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
