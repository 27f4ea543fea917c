"""``model-loaderd``: the entry point, which imports next to nothing: Ctrl-C is quiet at once."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""

try:
    import signal
except KeyboardInterrupt:
    raise SystemExit(INTERRUPTED) from None


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; returns the exit status."""
    # Until the broker takes its signals, and once it has ended, there is nothing to tidy up that
    # the end of this process does not: Ctrl-C ends it as SIGTERM does, without a traceback.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if interruptible:
            _end_at_ctrl_c()
        from loader_service.broker.daemon_command import run_daemon

        status = run_daemon(arguments)
        if interruptible:  # the event loop has left the default of Python
            _end_at_ctrl_c()
    except KeyboardInterrupt:
        status = INTERRUPTED
    return status


def _end_at_ctrl_c() -> None:
    if os.getpid() == 1:  # of a container: the kernel spares it the default action
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
