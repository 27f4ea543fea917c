"""The broker of one program: started by the client library, ends with the program.

``python -m loader_service.broker.embedded LIFE OPTIONS``: LIFE is the number of a socket that ends
with the program and on which one line of JSON says when the broker is ready, or why it is not.
OPTIONS is a JSON object with ``limits`` and the settings that ``embedded_life.CHOICES`` names.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from loader_service.broker.beginning import begin


def main(arguments: list[str]) -> int:
    """Run until the program is gone; returns the exit status."""
    life = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(life.fileno(), False)
    program = os.pidfd_open(os.getppid())
    options = json.loads(arguments[1])
    # Options that turn out to be wrong end this process, and that ends the zygote.
    begun = begin(str(options.get("runtime", "auto")))
    from loader_service.broker.embedded_life import live

    return live(begun, life, program, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
