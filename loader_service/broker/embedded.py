"""The broker of one program: started by the client library, ends with the program.

``python -m loader_service.broker.embedded LIFE OPTIONS``: LIFE is the number of a socket that ends
with the program and on which one line of JSON says when the broker is ready, or why it is not.
OPTIONS is a JSON object with ``limits`` and ``runtime``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys

from loader_service.broker.directory import private_directory
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings, complete
from loader_service.broker.zygote import Zygote
from loader_service.sandbox import process
from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits


def main(arguments: list[str]) -> int:
    """Run until the program is gone; returns the exit status."""
    life = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(life.fileno(), False)
    program = os.pidfd_open(os.getppid())
    options = json.loads(arguments[1])
    directory = private_directory()
    try:
        settings = Settings(
            directory=str(directory.path),
            limits=complete(Limits.from_values(options.get("limits", {}))),
            runtime=options.get("runtime", "auto"),
        )
    except (TypeError, ValueError) as error:
        directory.remove()
        _say(life, {"error": {"cause": Cause.INVALID_INPUT.value, "message": str(error)}})
        return 2
    process.set_child_subreaper()
    # The runtime warms up while this process imports gRPC.
    zygote = Zygote(settings.runtime)
    from loader_service.broker.broker import Broker

    async def live() -> int:
        broker = Broker(settings, directory, zygote)
        try:
            await broker.start()
        except Refusal as refusal:
            await broker.stop()
            failure = refusal.failure
            message = "\n".join(filter(None, (failure.message, failure.last_words)))
            _say(life, {"error": {"cause": failure.cause.value, "message": message}})
            return 1
        _say(life, {"directory": str(directory.path), "pid": os.getpid()})
        await _end_of(life, program)
        await broker.stop()
        return 0

    return asyncio.run(live())


async def _end_of(life: socket.socket, program: int) -> None:
    """Wait until the program closes its end or dies.

    Both, because a forked child of the program may hold a copy of the socket for long.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def readable() -> None:
        try:
            if not life.recv(4096):
                over.set()
        except ConnectionError:
            over.set()

    life.setblocking(False)
    loop.add_reader(life, readable)
    loop.add_reader(program, over.set)
    await over.wait()
    loop.remove_reader(life)
    loop.remove_reader(program)


def _say(life: socket.socket, values: dict[str, object]) -> None:
    try:
        life.sendall(json.dumps(values).encode() + b"\n")
    except ConnectionError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
