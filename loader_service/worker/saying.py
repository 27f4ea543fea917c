"""What a worker says to its broker on the control socket."""

from __future__ import annotations

import json
import os
import socket

from loader_service.worker.control import LONGEST_FROM_WORKER, Message, pack, pack_fields
from loader_service.worker.failing import Refused
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import pack_failure


def say(control: socket.socket, data: bytes) -> None:
    """Send a message, whole."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(control.fileno(), view) :]


def say_failed(control: socket.socket, failure: Failure, number: int | None = None) -> None:
    """Say why a model is not loaded; a host says the number of which one."""
    payload = pack_failure(failure)
    if number is not None:
        payload = json.dumps({**json.loads(payload), "number": number}).encode()
    say(control, pack(Message.FAILED, payload))


def say_facts(control: socket.socket, kind: Message, fields: dict[str, object]) -> None:
    """Send a message whose length depends on the model; raises Refused if it is too long."""
    message = pack_fields(kind, fields)
    if len(message) > LONGEST_FROM_WORKER:
        raise Refused(
            Cause.UNSUPPORTED,
            f"to say what the model is takes {len(message)} bytes, more than {LONGEST_FROM_WORKER}",
        )
    say(control, message)
