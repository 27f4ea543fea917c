"""The broker of one program, once its zygote is on its way (see ``embedded``)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loader_service.broker import log
from loader_service.broker.beginning import Beginning
from loader_service.broker.directory import private_directory
from loader_service.broker.refusal import Refusal
from loader_service.broker.running import run
from loader_service.broker.settings import Settings, complete
from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits
from model_loader_wire.shared_limits import SharedLimits

LOG_BYTES_PER_MINUTE = SharedLimits().log_bytes_per_minute

CHOICES = ("runtime", "operators", "isolation")
"""Settings that a program may choose for its own service, beside the limits."""


def live(begun: Beginning, life: socket.socket, program: int, options: Mapping[str, Any]) -> int:
    """Run until the program, of which `program` is a pidfd, is gone; returns the exit status."""
    # What a host does not give is in every model's report; a program's stderr is its own.
    log.configure("ERROR", LOG_BYTES_PER_MINUTE, "model-loader: %(message)s")
    try:
        chosen = {name: options[name] for name in CHOICES if name in options}
        limits = complete(Limits.from_values(options.get("limits", {})))
        devices = tuple(map(str, options.get("devices", ())))
        settings = Settings(directory="", limits=limits, devices=devices, admin=False, **chosen)
        directory = private_directory()
    except (TypeError, ValueError) as error:
        _refuse(begun, life, Cause.BAD_SOURCE, error)
        return 2
    except OSError as error:
        _refuse(begun, life, Cause.UNAVAILABLE, error)
        return 1
    settings = replace(settings, directory=str(directory.path))

    def ready(over: asyncio.Event) -> None:
        _say(life, {"directory": str(directory.path), "pid": os.getpid()})
        _watch(life, program, over)

    with life:
        try:
            run(settings, directory, ready, begun=begun)
        except Refusal as refusal:
            failure = refusal.failure
            message = "\n".join(filter(None, (failure.message, failure.last_words)))
            _say(life, {"error": {"cause": failure.cause.value, "message": message}})
            return 1
        except OSError as error:
            _say(life, {"error": {"cause": Cause.UNAVAILABLE.value, "message": str(error)}})
            return 1
    return 0


def _refuse(begun: Beginning, life: socket.socket, cause: Cause, error: Exception) -> None:
    """Say why there is no broker; of what was begun for it nothing outlives this process."""
    if begun.tree is not None:
        begun.tree.remove()
    _say(life, {"error": {"cause": cause.value, "message": str(error)}})


def _watch(life: socket.socket, program: int, over: asyncio.Event) -> None:
    """Notice that the program closes its end or dies.

    Both, because a forked child of the program may hold a copy of the socket for long.
    """
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            ended = not life.recv(4096)
        except ConnectionError:
            ended = True
        if ended:
            loop.remove_reader(life)
            over.set()

    def dead() -> None:
        loop.remove_reader(program)
        over.set()

    life.setblocking(False)
    loop.add_reader(life, readable)
    loop.add_reader(program, dead)


def _say(life: socket.socket, values: dict[str, object]) -> None:
    try:
        life.sendall(json.dumps(values).encode() + b"\n")
    except ConnectionError:
        return
