"""Exit codes: what a script learns from a command without reading its output."""

from __future__ import annotations

from enum import IntEnum

from model_loader import (
    ConstraintError,
    ModelLoaderError,
    NetworkError,
    QuotaExceededError,
    SecurityError,
    TimeoutError,
)
from model_loader_wire.causes import Cause


class Exit(IntEnum):
    """Every status with which `model-loader` ends."""

    OK = 0
    FAILED = 1
    """The model or the operation failed; `doctor`: no model can run; `demo`: not as promised."""
    USAGE = 2
    """The command line, or inputs that do not fit the model."""
    NO_SERVICE = 3
    """No service was found, or none could be started."""
    REFUSED = 4
    """A limit (memory, time, size, number) or the sandbox's policy stopped it."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it: 128 and the signal's number."""
    NOBODY_READS = 141
    """Whoever read the output closed it, as shells count SIGPIPE."""


EPILOG = (
    "Exit status: 0 done; 1 the model or the operation failed; 2 wrong usage, or inputs that do "
    "not fit the model; 3 no service; 4 stopped by a limit or by the sandbox's policy; 130 Ctrl-C."
)
"""Said by the command's own `--help`."""


class NoService(Exception):
    """No service was found or could be started; the message is for the user."""


def exit_for(error: ModelLoaderError) -> Exit:
    """The status that an error of the library ends the command with."""
    if isinstance(error, ConstraintError) or error.cause is Cause.INVALID_INPUT:
        return Exit.USAGE
    if isinstance(error, NetworkError):
        return Exit.NO_SERVICE
    if isinstance(error, QuotaExceededError | SecurityError | TimeoutError):
        return Exit.REFUSED
    return Exit.FAILED
