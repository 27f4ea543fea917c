"""`model-loader completion`: what a shell needs to complete this command's words."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from ..exits import Exit

EPILOG = """\b
Examples:
  model-loader completion bash > ~/.local/share/bash-completion/completions/model-loader
  model-loader completion zsh > ~/.zfunc/_model-loader
  model-loader completion fish > ~/.config/fish/completions/model-loader.fish
"""
PROGRAM = "model-loader"
VARIABLE = "_MODEL_LOADER_COMPLETE"
"""By which the shell asks; the name is Click's."""


@click.command(epilog=EPILOG, short_help="Print what completes commands in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print a script that lets the shell complete commands, options and files."""
    kind = get_completion_class(shell)
    assert kind is not None
    sys.stdout.write(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
    sys.stdout.write("\n")
    return Exit.OK
