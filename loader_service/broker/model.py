"""A loaded model, as the broker knows it."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, field

from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.relay import Relay
from loader_service.broker.worker import Worker
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.description import ModelDescription
from model_loader_wire.limits import Limits


def new_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(12)


@dataclass(slots=True, kw_only=True)
class Model:
    """One model in one worker."""

    worker: Worker
    description: ModelDescription
    limits: Limits
    sha256: bytes
    label: str
    origin: str
    relay: Relay | None = None
    model_id: str = field(default_factory=new_id)
    loaded_at: float = field(default_factory=time.monotonic)

    @property
    def lost(self) -> Failure | None:
        """Why the model is gone, or None."""
        return self.worker.ended.result() if self.worker.ended.done() else None

    def take_channel(self) -> socket.socket:
        """Give away the client's end of the channel, once; raises Refusal after that."""
        channel = self.worker.channel
        if self.relay is not None:
            raise refuse(Cause.CLOSED, "this model was loaded to be relayed: it has no channel")
        if self.lost is not None:
            raise Refusal(self.lost)
        if channel is None:
            raise refuse(Cause.FORBIDDEN, "the channel of this model was already handed out")
        self.worker.channel = None
        return channel

    async def close(self, reason: Failure) -> None:
        """End the worker and wait until it is dead."""
        self.worker.kill(reason)
        await self.worker.ended
