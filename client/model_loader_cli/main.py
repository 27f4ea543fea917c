"""The entry point. It imports next to nothing, so that Ctrl-C is quiet from the start."""

from __future__ import annotations

import sys

try:
    import signal
except KeyboardInterrupt:
    raise SystemExit(130) from None  # as `exits.py` has it, which is not imported yet


def main() -> None:
    """Run the command line and end the process with the command's exit status."""
    # While the commands are imported, and at the end, there is nothing to tidy up that the end of
    # this process does not: Ctrl-C ends it at once, without the traceback of an import.
    handler = signal.getsignal(signal.SIGINT)
    interruptible = handler is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .command_line import status_of
    from .exits import Exit

    try:
        if interruptible:
            signal.signal(signal.SIGINT, handler)
        status = int(status_of())
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        status = Exit.INTERRUPTED
    sys.exit(status)
