"""The group of commands, and how anything that goes wrong ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from model_loader import ModelLoaderError

from .commands.bench import bench
from .commands.completion import completion
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.drain import drain
from .commands.events import events
from .commands.inspect import inspect
from .commands.kill import kill
from .commands.limits import limits
from .commands.models import models
from .commands.ps import ps
from .commands.run import run
from .commands.status import status
from .commands.top import top
from .exits import EPILOG, Exit, NoService, exit_for
from .failing import show_error, show_failure

PROGRAM = "model-loader"


def _version() -> str:
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(not installed)"


@click.group(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_version(), prog_name=PROGRAM)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Run untrusted TensorFlow Lite models, each in a locked-down process of its own.

    The model file is never read in this program's own process. The commands use the service that
    MODEL_LOADER_ADDRESS names, else a running model-loaderd; run, inspect and demo else start a
    private one.
    """


for command in (
    *(demo, run, inspect, doctor, bench),
    *(status, ps, top, events, kill, limits, drain, models),
    completion,
):
    cli.add_command(command)


def status_of(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given[:1]
    try:
        status = cli.main(given, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return int(status or Exit.OK)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            return Exit.OK  # a shell was told how to complete a word
        # Click and Rich end the program when nobody reads on; its last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.NOBODY_READS
    except NoService as error:
        if debug:
            raise
        show_failure(str(error))
        return Exit.NO_SERVICE
    except ModelLoaderError as error:
        if debug:
            raise
        show_error(error)
        return exit_for(error)
