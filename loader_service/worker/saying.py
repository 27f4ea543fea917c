"""What a worker says to its broker on the control socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from loader_service.worker.control import (
    LONGEST_DELEGATION,
    LONGEST_FROM_WORKER,
    MOST_COMMAS,
    Message,
    pack,
    pack_fields,
)
from loader_service.worker.failing import Refused
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.frames import pack_failure

if TYPE_CHECKING:
    # Not loaded by a worker that was asked for no device.
    from model_loader_wire.delegation import Delegation


def say(control: socket.socket, data: bytes) -> None:
    """Send a message, whole."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(control.fileno(), view) :]


def say_failed(control: socket.socket, failure: Failure, about: bytes = b"") -> None:
    """Say why a model is not loaded; `about` is the number of a host's channel."""
    say(control, pack(Message.FAILED, about + pack_failure(failure)))


def say_delegation(control: socket.socket, delegation: Delegation) -> None:
    """Tell of a change in what devices run; one that would be too long to say is not told."""
    message = pack_fields(Message.DELEGATION, delegation.to_values())
    if len(message) <= LONGEST_DELEGATION and message.count(b",") <= MOST_COMMAS:
        say(control, message)


def say_facts(
    control: socket.socket, kind: Message, fields: dict[str, object], about: bytes = b""
) -> None:
    """Send a message whose length depends on the model; raises Refused if it is too long."""
    message = pack_fields(kind, fields, about)
    for what, amount, most in (
        ("bytes", len(message), LONGEST_FROM_WORKER),
        ("values", message.count(b","), MOST_COMMAS),
    ):
        if amount > most:
            raise Refused(
                Cause.UNSUPPORTED,
                f"to say what the model is takes {amount} {what}, more than {most}",
            )
    say(control, message)
